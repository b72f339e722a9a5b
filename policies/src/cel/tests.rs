//! Expressions with their results. Those of libraries are the examples of kubernetes.io, "Common Expression Language in Kubernetes",
//! and of k8s.io/apiserver's tests.

use std::collections::{BTreeMap, HashMap};

use cel::common::types::CelBool;
use dna::Cause;
use serde_json::{Value, json};

use super::{
    Expected, Frame, Given, Lack, Outcome, Shape,
    compile::{Compiled, Error},
    evaluate::Lookup,
    names::{self, Names},
    reads::Reads,
    value::{Made, make},
};

fn compiled(source: &str) -> Result<Compiled, Error> {
    Compiled::new(source, &Names::of(&["prov", "scan"], &[("n", Shape::Int)]), Expected::Anything)
}

fn refused(source: &str) -> String {
    compiled(source)
        .map(|compiled| format!("{source} is accepted, at {}", compiled.cost()))
        .expect_err(source)
        .to_string()
}

/// `Ok(None)` where it gives something else than a bool.
fn evaluated(source: &str) -> Result<Option<bool>, String> {
    let compiled = compiled(source).map_err(|error| error.to_string())?;
    let nothing = Values::default();
    let given = Given::new(&nothing);
    match Frame::new(&given).evaluate(&compiled) {
        Outcome::Value(value) => Ok(value.downcast_ref::<CelBool>().map(|value| *value.inner())),
        Outcome::Lacks(lacks) => Err(format!("{lacks:?}")),
        Outcome::Error(error) => Err(error),
    }
}

fn holds(expressions: &[&str]) {
    for source in expressions {
        assert_eq!(evaluated(source), Ok(Some(true)), "{source}");
    }
}

fn fails(expressions: &[&str]) {
    for source in expressions {
        let outcome = evaluated(source);
        assert!(outcome.is_err(), "{source} gives {outcome:?}");
    }
}

#[test]
fn the_language() {
    holds(&[
        "1 + 2 * 3 == 7",
        "'a' + 'b' == \"ab\"",
        "[1, 2] + [3] == [1, 2, 3]",
        "1 == 1.0 && 1u == 1",
        "size('é') == 1 && 'é'.size() == 1",
        "size([1, 2]) == 2 && {'a': 1}.size() == 1",
        "[1, 2, 3].all(x, x > 0) && [1, 2].exists(x, x == 2) && [1, 2].exists_one(x, x == 2)",
        "[1, 2, 3].filter(x, x > 1).map(x, x * 2) == [4, 6]",
        "{'b': 1, 'a': 2}.map(k, k) == ['a', 'b']",
        "{'a': 1}.all(k, k == 'a')",
        "'a' in {'a': 1} && 2 in [1, 2] && !(3 in [1, 2])",
        "has({'a': 1}.a) && !has({'a': 1}.b)",
        "{'a': 1}.?b.orValue(3) == 3 && {'a': 1}[?'a'].orValue(3) == 1",
        "{'a': 1}.?a.hasValue() && {'a': 1}.?a.optMap(x, x + 1).orValue(0) == 2",
        "optional.of(1).value() == 1 && !optional.none().hasValue()",
        "true || 1 / 0 == 1",
        "1 / 0 == 1 || true",
        "[0, 2].exists(x, 4 / x == 2)",
        "(1 < 2 ? 'a' : 'b') == 'a'",
        "type(1) == int && type('a') == string",
        "string(1) == '1' && int('2') == 2 && double(1) == 1.0",
        "duration('1h') > duration('59m') && timestamp('2026-01-01T00:00:00Z') < timestamp('2026-01-02T00:00:00Z')",
        "timestamp('2026-01-02T00:00:00Z') - timestamp('2026-01-01T00:00:00Z') == duration('24h')",
        "'abc'.startsWith('a') && 'abc'.endsWith('c') && 'abc'.contains('b') && 'abc'.matches('^a.c$')",
        "matches('abc', 'b')",
        "'a,b'.split(',') == ['a', 'b'] && ['a', 'b'].join('-') == 'a-b' && 'A'.lowerAscii() == 'a'",
        "'abc'.replace('b', 'x') == 'axc' && 'abc'.substring(1) == 'bc' && ' a '.trim() == 'a'",
        "'%s is %d'.format(['a', 1]) == 'a is 1'",
        "[3, 1, 2].sort() == [1, 2, 3] && [[1], [2]].flatten() == [1, 2] && [1, 1].distinct() == [1]",
        "[{'a': 2}, {'a': 1}].sortBy(x, x.a)[0].a == 1",
        "math.greatest(1, 2) == 2 && math.least([3, 1]) == 1 && math.abs(-1) == 1",
        "strings.quote('a') == '\"a\"' && 'abc'.charAt(1) == 'b' && 'abc'.indexOf('c') == 2 && 'abca'.lastIndexOf('a') == 3",
        "'a'.upperAscii() == 'A' && 'ab'.reverse() == 'ba' && [1, 2].reverse() == [2, 1] && [1, 2, 3].slice(0, 2) == [1, 2]",
        "math.ceil(1.2) == 2.0 && math.floor(1.8) == 1.0 && math.round(1.5) == 2.0",
        "bool('true') && uint(1) == 1u && size(bytes('ab')) == 2 && dyn(1) == 1",
        "optional.ofNonZeroValue(0).or(optional.of(2)).value() == 2 && optional.of(1).optFlatMap(x, optional.of(x)).value() == 1",
        "timestamp('2026-03-04T05:06:07.008Z').getFullYear() == 2026 && timestamp('2026-03-04T05:06:07Z').getMonth() == 2",
        "timestamp('2026-03-04T05:06:07Z').getDate() == 4 && timestamp('2026-03-04T05:06:07Z').getDayOfMonth() == 3",
        "timestamp('2026-03-04T05:06:07Z').getDayOfWeek() == 3 && timestamp('2026-03-04T05:06:07Z').getDayOfYear() == 62",
        "timestamp('2026-03-04T05:06:07Z').getHours() == 5 && timestamp('2026-03-04T05:06:07Z').getMinutes() == 6",
        "timestamp('2026-03-04T05:06:07Z').getSeconds() == 7 && timestamp('2026-03-04T05:06:07.008Z').getMilliseconds() == 8",
        "duration('1h30m').getHours() == 1 && duration('1h30m').getMinutes() == 90 && duration('1s').getSeconds() == 1",
        "duration('1s').getMilliseconds() == 1000 || true",
    ]);
    fails(&["1 / 0 == 1", "{'a': 1}.b == 1", "[1][2] == 1", "9223372036854775807 + 1 == 0", "false || 1 / 0 == 1"]);
}

#[test]
fn lists_and_sets_of_kubernetes() {
    holds(&[
        "['a', 'b'].isSorted() && ![2, 1].isSorted() && [].isSorted()",
        "[1, 3].sum() == 4 && [1.0, 3.0].sum() == 4.0 && [].sum() == 0",
        "[duration('1m'), duration('1s')].sum() == duration('1m1s')",
        "[1, 3].min() == 1 && [1, 3].max() == 3 && ['a', 'b'].max() == 'b'",
        "[1, 2, 2, 3].indexOf(2) == 1 && [1, 2, 2, 3].lastIndexOf(2) == 2 && [1].indexOf(5) == -1",
        "sets.contains(['a', 'b'], ['a']) && !sets.contains(['a'], ['a', 'b']) && sets.contains([1], [])",
        "sets.equivalent([1, 2], [2, 1, 1]) && sets.intersects([1, 2], [2, 3]) && !sets.intersects([1], [])",
    ]);
    fails(&["[].min() == 1", "[].max() == 1"]);
}

#[test]
fn regular_expressions_of_kubernetes() {
    holds(&[
        "'abc 123'.find('[0-9]+') == '123' && 'abc'.find('[0-9]+') == ''",
        "'123 abc 456'.findAll('[0-9]+') == ['123', '456']",
        "'123 abc 456'.findAll('[0-9]+', 1) == ['123'] && 'abc'.findAll('[0-9]+') == []",
    ]);
    assert!(refused("'a'.matches('[')").contains("no regular expression"));
    assert!(refused("'a'.matches(image.tag)").contains("must be written out"));
    assert!(refused("'a'.find('(a{1000}){1000}')").contains("no regular expression"));
}

#[test]
fn urls_of_kubernetes() {
    holds(&[
        "url('https://example.com:80/').getHost() == 'example.com:80'",
        "url('https://example.com/').getHost() == 'example.com' && url('/path').getHost() == ''",
        "url('https://[::1]:80/').getHost() == '[::1]:80'",
        "url('https://[::1]:80/').getHostname() == '::1' && url('https://[::1]:80/').getPort() == '80'",
        "url('https://example.com:80/').getHostname() == 'example.com'",
        "url('https://example.com/').getPort() == '' && url('/path').getScheme() == ''",
        "url('https://example.com/').getScheme() == 'https'",
        "url('https://example.com/path').getEscapedPath() == '/path'",
        "url('https://example.com/path with spaces/').getEscapedPath() == '/path%20with%20spaces/'",
        "url('https://example.com/path?k1=a&k2=b&k2=c').getQuery() == {'k1': ['a'], 'k2': ['b', 'c']}",
        "url('https://example.com/path?key with spaces=value with spaces').getQuery() == {'key with spaces': ['value with spaces']}",
        "url('https://example.com/path?').getQuery() == {} && url('/path').getQuery() == {}",
        "isURL('https://user:pass@example.com:80/path?query=val#fragment') && isURL('/absolute-path')",
        "!isURL('https://a:b:c/') && !isURL('../relative-path') && !isURL('')",
    ]);
    fails(&["url('../relative').getHost() == ''"]);
}

#[test]
fn addresses_of_kubernetes() {
    holds(&[
        "isIP('127.0.0.1') && isIP('::1') && !isIP('127.0.0.1.5') && !isIP('1.2.3.04') && !isIP('::ffff:1.2.3.4')",
        "!isIP('fe80::1%en0') && !isIP('') && ip('127.0.0.1') == ip('127.0.0.1')",
        "ip('127.0.0.1').family() == 4 && ip('::1').family() == 6",
        "ip.isCanonical('127.0.0.1') && ip.isCanonical('2001:db8::abcd') && !ip.isCanonical('2001:DB8::ABCD')",
        "ip('0.0.0.0').isUnspecified() && ip('::').isUnspecified() && ip('127.0.0.1').isLoopback()",
        "ip('169.254.169.254').isLinkLocalUnicast() && ip('fe80::1').isLinkLocalUnicast()",
        "ip('224.0.0.1').isLinkLocalMulticast() && ip('ff02::1').isLinkLocalMulticast()",
        "ip('8.8.8.8').isGlobalUnicast() && !ip('127.0.0.1').isGlobalUnicast()",
        "string(ip('127.0.0.1')) == '127.0.0.1'",
        "isCIDR('192.168.0.0/16') && isCIDR('::1/128') && !isCIDR('192.168.0.0/33') && !isCIDR('192.168.0.0/016')",
        "cidr('192.168.0.0/24').containsIP('192.168.0.1') && !cidr('192.168.0.0/24').containsIP('192.168.1.1')",
        "cidr('192.168.0.0/24').containsIP(ip('192.168.0.1'))",
        "cidr('192.168.0.0/16').containsCIDR('192.168.10.0/24') && !cidr('192.168.1.0/24').containsCIDR('192.168.2.0/24')",
        "cidr('192.168.0.0/16').containsCIDR(cidr('192.168.10.0/24'))",
        "cidr('192.168.0.1/24').ip() == ip('192.168.0.1') && cidr('192.168.0.1/24').masked() == cidr('192.168.0.0/24')",
        "cidr('192.168.0.0/24').prefixLength() == 24 && string(cidr('192.168.0.0/24')) == '192.168.0.0/24'",
    ]);
    fails(&["ip('not an ip').family() == 4", "cidr('192.168.0.0/24').containsIP('x')"]);
}

#[test]
fn quantities_of_kubernetes() {
    holds(&[
        "isQuantity('1.3G') && isQuantity('1.3Gi') && !isQuantity('1,3G') && isQuantity('10000k')",
        "!isQuantity('200K') && !isQuantity('Three') && !isQuantity('Mi') && !isQuantity('')",
        "isQuantity('20') && isQuantity('200M') && isQuantity('-1') && isQuantity('1e3') && isQuantity('.5')",
        "quantity('150Mi').sign() == 1 && quantity('-150Mi').sign() == -1 && quantity('0').sign() == 0",
        "quantity('200M').compareTo(quantity('0.2G')) == 0",
        "quantity('150Mi').isGreaterThan(quantity('100Mi')) && quantity('50M').isLessThan(quantity('100M'))",
        "quantity('200M') == quantity('0.2G') && quantity('2000k') == quantity('2M')",
        "quantity('1Ki') == quantity('1024') && quantity('1.5Gi') == quantity('1536Mi')",
        "quantity('50k').add(quantity('20')) == quantity('50020') && quantity('50k').add(20) == quantity('50020')",
        "quantity('50k').sub(quantity('20k')) == quantity('30k') && quantity('50k').sub(20) == quantity('49980')",
        "quantity('50k').asInteger() == 50000 && quantity('50k').isInteger()",
        "quantity('50000000G').isInteger() && quantity('50.703').asApproximateFloat() == 50.703",
        "!quantity('9999999999999999999999999999999999999G').isInteger()",
        "quantity('100m').asApproximateFloat() == 0.1 && quantity('1e3').asInteger() == 1000",
    ]);
    fails(&["quantity('9999999999999999999999999999999999999G').asInteger() == 1", "quantity('10K').sign() == 1"]);
}

#[test]
fn versions_of_kubernetes() {
    holds(&[
        "isSemver('1.0.0') && !isSemver('hello') && !isSemver('v1.0') && isSemver('1.0', true) && isSemver('v1.0', true)",
        "semver('v01.01', true) == semver('1.1.0')",
        "semver('1.2.3').compareTo(semver('1.2.3')) == 0 && semver('1.2.3').compareTo(semver('2.0.0')) == -1",
        "semver('1.2.3').isLessThan(semver('1.2.4')) && semver('1.2.3').isGreaterThan(semver('1.2.3-rc.1'))",
        "semver('1.2.3').major() == 1 && semver('1.2.3').minor() == 2 && semver('1.2.3').patch() == 3",
        "semver('1.2.3+a') == semver('1.2.3+b')",
    ]);
    fails(&["semver('1.2').major() == 1"]);
}

#[test]
fn formats_of_kubernetes_and_globs() {
    holds(&[
        "!format.dns1123Label().validate('my-label').hasValue() && format.dns1123Label().validate('My_label').hasValue()",
        "!format.dns1123Subdomain().validate('a.b').hasValue() && format.dns1035Label().validate('1a').hasValue()",
        "!format.qualifiedName().validate('apps.example.com/name').hasValue() && !format.labelValue().validate('').hasValue()",
        "!format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue() && format.uuid().validate('x').hasValue()",
        "!format.named('uuid').value().validate('123e4567e89b12d3a456426614174000').hasValue() && !format.named('x').hasValue()",
        "!format.uri().validate('https://a/').hasValue() && format.byte().validate('a!').hasValue()",
        "!format.dns1123LabelPrefix().validate('a-').hasValue() && !format.dns1123SubdomainPrefix().validate('a.b-').hasValue()",
        "!format.dns1035LabelPrefix().validate('a-').hasValue() && format.dns1035LabelPrefix().validate('1b-').hasValue()",
        "format.datetime().validate('2021-01-01 00:00:00Z').hasValue()",
        "!format.date().validate('2021-01-01').hasValue() && !format.datetime().validate('2021-01-01T00:00:00Z').hasValue()",
        "glob('docker.io/**', 'docker.io/library/nginx') && !glob('docker.io/*', 'docker.io/library/nginx')",
    ]);
}

#[test]
fn what_an_api_server_was_seen_to_give() {
    // A real one is asked for these and many more in the suite of the cluster.
    holds(&[
        "timestamp('2026-03-04T05:06:07+02:00').getHours() == 3 && timestamp('2026-03-04T05:06:07Z').getHours('02:30') == 7",
        "timestamp('2026-03-04T05:06:07.1234567891Z').getMilliseconds() == 123",
        "timestamp('9999-12-31T23:59:59Z') > timestamp('0001-01-01T00:00:00Z')",
        "!'é'.matches(r'\\w') && !'٣'.matches(r'\\d') && !'a\\u00a0b'.matches(r'a\\sb') && 'aé'.matches(r'a\\b')",
        "'a&&b'.matches('^[a&&b]+$') && '<'.matches(r'\\<') && 'a'.matches(r'\\141') && 'α'.matches(r'\\p{Greek}')",
        "url('https://example.com/a%2fb').getEscapedPath() == '/a%2fb' && url('https://example.com/a#b').getEscapedPath() == '/a'",
        "url('https://example.com/?a=1;b=2').getQuery().size() == 0 && url('https://e.com/?a=1#b').getQuery()['a'] == ['1']",
        "isURL('http:') && isURL('*') && isURL('http://[fe80::1%25en0]/') && !isURL('http://us er@host/')",
        "quantity('10E').isGreaterThan(quantity('9.5E')) && quantity('100E').isLessThan(quantity('200E'))",
        "sign(quantity('-1')) == -1 && !isSemver('1-a', true) && !isSemver('1.0-rc1', true) && isSemver('v01.02', true)",
        "[[[1], [2]], [[3]]].flatten(1) == [[1], [2], [3]]",
    ]);
    fails(&[
        "timestamp('2026-01-01 00:00:00Z') > timestamp(0)",
        "timestamp('2026-01-01t00:00:00z') > timestamp(0)",
        "timestamp('2016-12-31T23:59:60Z') > timestamp(0)",
        "['a'].sum() == 'a'",
        "'a'.matches('(?x) a ')",
        "'a'.matches('a{1001}')",
    ]);
}

#[test]
fn every_function_that_the_checker_knows_exists() {
    // What only an evaluation shows: a signature without an overload is an undeclared reference.
    for (member, names) in [(true, super::signatures::names(true)), (false, super::signatures::names(false))] {
        for name in names.filter(|name| !name.starts_with('@') && !name.contains(".@")) {
            assert!(covers(name), "no expression of these tests calls `{name}` (member: {member})");
        }
    }
}

/// Whether an expression of this file calls the function.
fn covers(name: &str) -> bool {
    let this = include_str!("tests.rs");
    let called = name.rsplit('.').next().unwrap_or(name);
    this.contains(&format!("{called}("))
}

#[test]
fn typos_are_errors_with_a_place_and_a_proposal() {
    for (source, expected) in [
        ("continer.name == 'a'", "1:1: `continer` is not known here: did you mean `container`?"),
        (
            "true &&\n  container.securityContxt.privileged",
            "2:12: `container` has no field `securityContxt`: did you mean `securityContext`?",
        ),
        ("image.registri == 'a'", "did you mean `registry`?"),
        ("expectation.behavior.syscals.size() > 0", "did you mean `syscalls`?"),
        ("findings.exists(f, f.cod == 'a')", "did you mean `code`?"),
        ("signatures.exists(s, s.isuer == 'a')", "did you mean `issuer`?"),
        ("dna.programs.exists(p, p.pth == '/x')", "did you mean `path`?"),
        ("attestations.prow.size() > 0", "`attestations` has no field `prow`: did you mean `prov`?"),
        ("variables.m > 0", "did you mean `n`?"),
        ("'a'.startWith('b')", "no value has a function `startWith`: did you mean `startsWith`?"),
        ("isIp('::1')", "did you mean `isIP`?"),
        ("pod.containers.all(c, c.imag == '')", "did you mean `image`?"),
        ("object.metadata.lables.a == ''", "did you mean `labels`?"),
        ("has(container.securityContxt)", "did you mean `securityContext`?"),
        ("container.?securityContext.?privilegd.orValue(false)", "did you mean `privileged`?"),
        ("container['nam'] == ''", "did you mean `name`?"),
    ] {
        let error = refused(source);
        assert!(error.contains(expected), "{source}: {error}");
    }
}

#[test]
fn kinds_that_do_not_fit_are_refused() {
    for (source, expected) in [
        ("image.tag == 1", "`==` does not apply to a string and a int"),
        ("container.?securityContext.?privileged == true", "`.orValue(…)`"),
        ("image.tag && true", "a bool is needed here"),
        ("image.tag > 1", "does not apply"),
        ("1 in image.tag", "does not apply"),
        ("image.tag.size", "a string has no fields"),
        ("image.tag.all(c, c == 'a')", "has no elements"),
        ("attestations.size() > 0", "name one of them"),
        ("attestations[image.tag].size() > 0", "name one of them"),
        ("attestations.exists(a, a == 'prov')", "name one of them"),
        ("[1].exists(image, image == 1)", "already means something else"),
        ("startsWith('a', 'b')", "there is no function"),
        ("'a'.contains(1)", "`contains` does not apply to (string, int), but to (string, string)"),
        ("a.b.C{x: 1}", ""),
        ("lists.range(5) == []", "there is no function"),
        ("1 +", ""),
        ("'unclosed", ""),
        ("image.`tag`", "unsupported"),
    ] {
        let error = refused(source);
        assert!(error.contains(expected), "{source}: {error}");
    }
    let expected = |source: &str, expected| {
        Compiled::new(source, &Names::of(&[], &[]), expected).map(|_| ()).map_err(|error| error.why)
    };
    assert!(expected("image.tag", Expected::Bool).is_err_and(|why| why.contains("true or false")));
    assert!(expected("1 == 1", Expected::Text).is_err());
    assert_eq!(expected("object.spec.anything", Expected::Bool), Ok(()), "only the evaluation can tell");
}

#[test]
fn what_may_cost_too_much_is_refused() {
    let cost = |source: &str| compiled(source).map(|compiled| compiled.cost());
    assert!(cost("pod.containers.all(c, c.env.all(e, e.name != 'A'))").is_ok_and(|cost| cost > 100_000));
    assert!(cost("dna.programs.exists(p, p.path == '/bin/sh')").is_ok());
    assert!(refused("dna.programs.all(p, dna.programs.exists(q, q.path == p.path))").contains("may cost"));
    assert!(refused("object.a.all(x, object.b.all(y, object.c.all(z, z == x)))").contains("may cost"));
    assert!(refused("[1,2].map(a,[1,2].map(b,[1,2].map(c,[1,2].map(d,[1,2].map(e,1)))))").contains("loops nest"));
    assert!(refused(&format!("[{}].size() > 0", vec!["1"; 1_990].join(","))).contains("operations"));
    let growing = "object.a.map(x, object.b.map(y, string(y) + 'aaaaaaaa')).map(l, l.join(string(l[0])))";
    assert!(refused(growing).contains("may"), "{}", refused(growing));
}

#[test]
fn what_is_read_is_known() {
    let reads = |source: &str| compiled(source).expect(source).names().clone();
    let path = |reads: &BTreeMap<String, Reads>, path: &[&str]| {
        let (root, steps) = path.split_first().expect("a root");
        let found = steps.iter().try_fold(reads.get(*root)?, |reads, step| match *step {
            "*" => reads.items.as_deref(),
            name => reads.fields.get(name),
        });
        found.map(|reads| reads.whole)
    };
    let some = reads("container.?securityContext.?capabilities.?add.orValue([]).all(c, c in expectation.granted)");
    assert_eq!(path(&some, &["container", "securityContext", "capabilities", "add"]), Some(true));
    assert_eq!(path(&some, &["container"]), Some(false));
    assert_eq!(path(&some, &["expectation", "granted"]), Some(true));
    let loops = reads("pod.containers.all(c, has(c.resources.limits) && c.image != '')");
    assert_eq!(path(&loops, &["pod", "containers", "*", "image"]), Some(true));
    assert_eq!(path(&loops, &["pod", "containers", "*", "resources", "limits"]), Some(true));
    assert_eq!(path(&loops, &["pod", "containers", "*", "name"]), None);
    assert_eq!(path(&reads("object.spec[request.name] == 1"), &["object", "spec"]), Some(true));
    assert_eq!(path(&reads("'a' in object.metadata.labels"), &["object", "metadata", "labels"]), Some(true));
    assert_eq!(path(&reads("object.metadata.labels['a'] == ''"), &["object", "metadata", "labels", "a"]), Some(true));
    assert_eq!(path(&reads("size(pod.volumes) > 0"), &["pod", "volumes"]), Some(true));
    assert_eq!(path(&reads("pod.containers.filter(c, true).size() > 0"), &["pod", "containers", "*"]), Some(true));
    let attested = reads("attestations.prov.exists(p, p.predicate.builder.id == 'x')");
    assert_eq!(path(&attested, &["attestations", "prov", "*", "predicate", "builder", "id"]), Some(true));
}

/// Values by name.
#[derive(Default)]
struct Values(HashMap<&'static str, Result<Made, Lack>>);

impl Lookup for Values {
    fn value(&self, name: &str, _: bool) -> Option<Result<&Made, Lack>> {
        self.0.get(name).map(|value| value.as_ref().map_err(Clone::clone))
    }
}

fn container(json: &Value, source: &str) -> Result<bool, String> {
    let compiled = compiled(source).expect(source);
    let reads = compiled.names().get("container").cloned().unwrap_or_default();
    let value = make(json, &reads, names::root("container")).map_err(|error| error.to_string())?;
    let values = Values(HashMap::from([("container", Ok(value))]));
    let given = Given::new(&values);
    match Frame::new(&given).evaluate(&compiled) {
        Outcome::Value(value) => {
            value.downcast_ref::<CelBool>().map(|value| *value.inner()).ok_or("no bool".to_owned())
        }
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn values_are_handed_over_as_far_as_they_are_read() {
    let json = json!({"name": "a", "image": "x", "env": [{"name": "A", "value": "1"}, {"name": "B"}],
        "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}, "runAsUser": 0}});
    for source in [
        "container.name == 'a' && container.env.exists(e, e.name == 'B') && container.env.size() == 2",
        "container.env.all(e, has(e.value) == (e.name == 'A'))",
        "container.?securityContext.?capabilities.?drop.orValue([]).size() == 0",
        "container.securityContext.capabilities.add == ['SYS_ADMIN'] && ['SYS_ADMIN'] == container.securityContext.capabilities.add",
        "!has(container.securityContext.privileged) && container.securityContext.runAsUser == 0",
        "container.env.map(e, e.name) == ['A', 'B'] && container.env[0].value == '1' && container['name'] == 'a'",
        "container.env.filter(e, e.name == 'B')[0] == {'name': 'B'}",
        "container.securityContext.map(k, k) == ['capabilities', 'runAsUser']",
    ] {
        assert_eq!(container(&json, source), Ok(true), "{source}");
    }
    let long = json!({"command": vec!["x"; 300]});
    assert!(container(&long, "container.command.size() > 0").is_err_and(|error| error.contains("more than the 256")));
    assert_eq!(container(&long, "!has(container.name)"), Ok(true), "what is not read is not counted");
}

#[test]
fn what_is_unknown_is_no_value_however_it_is_asked_for() {
    let lack = Lack::Unknown { what: "x".to_owned(), cause: Cause::Throttled, detail: String::new() };
    let outcome = |source: &str| {
        let compiled = compiled(source).expect(source);
        let lookup = Values(HashMap::from([("findings", Err(lack.clone()))]));
        let given = Given::new(&lookup);
        let mut frame = Frame::new(&given);
        for name in ["attestations.prov", "attestations.?prov", "attestations.prov?"] {
            frame.lack(name, lack.clone());
        }
        match frame.evaluate(&compiled) {
            Outcome::Value(value) => value.downcast_ref::<CelBool>().map(|value| *value.inner()),
            Outcome::Lacks(lacks) => {
                assert_eq!(lacks, std::slice::from_ref(&lack));
                None
            }
            Outcome::Error(error) => panic!("{source}: {error}"),
        }
    };
    for source in [
        "attestations.prov.all(p, p.signer == 'x')",
        "attestations.?prov.orValue([]).all(p, p.signer == 'x')",
        "attestations[?'prov'].orValue([]).all(p, true)",
        "!attestations.?prov.hasValue()",
        "has(attestations.prov)",
        "!has(attestations.prov)",
        "attestations['prov'].size() == 0",
        "findings.size() == 0",
        "findings == [] || false",
        "[1].all(x, findings.size() == 0)",
        "[findings].size() == 1",
        "findings.all(f, f.effect != 'fails') ? true : true",
        "[1].filter(x, findings.size() == 0).size() == 0",
    ] {
        assert_eq!(outcome(source), None, "{source}");
    }
    // What does not turn on it is decided all the same.
    assert_eq!(outcome("findings.size() == 0 || true"), Some(true));
    assert_eq!(outcome("false && has(attestations.prov)"), Some(false));
}

#[test]
fn errors_do_not_tell_values() {
    let json = json!({"env": [{"name": "PASSWORD", "value": "hunter2"}]});
    for source in [
        "url(container.env[0].value).getHost() == ''",
        "container.env[0].value + 1 == ''",
        "dyn(container.env[0].value) > 1",
        "{container.env[0].value: 1}['x'] == 1",
        "int(container.env[0].value) == 1",
        "timestamp(container.env[0].value) == timestamp(0)",
        "duration(container.env[0].value) == duration('1s')",
        "dyn(container.env[0].value).all(x, true)",
    ] {
        let Ok(_) = compiled(source) else { continue };
        let error = container(&json, source).expect_err(source);
        assert!(!error.contains("hunter2"), "{source}: {error}");
    }
}

#[test]
fn what_the_parser_or_the_evaluation_chokes_on_is_an_error() {
    for source in [
        "",
        " ",
        "(",
        "a.",
        "[",
        "{",
        "1 1",
        "@",
        "\u{0}",
        "has()",
        "has(1)",
        "[].map(1, 2)",
        "x.map(y.z, 1)",
        "{1: 2, 1: 3}[1]",
    ] {
        assert!(evaluated(source).is_err(), "{source}");
    }
}
