//! Real images, built from Debian's packages: pushed to a registry, pulled, analyzed, and held against what others see in
//! them: `umoci unpack`, syft, and the kernel's own record of what their containers did.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tests::{Access, Registry, mayfly, run};

/// The folder of image layouts, `IMAGES`, one folder an image; tagged `truth/NAME:latest`.
fn layouts() -> Vec<(String, PathBuf)> {
    let folder = env::var_os("IMAGES").expect("IMAGES names the folder of image layouts: see .ci/run");
    let mut found: Vec<_> = fs::read_dir(folder)
        .expect("IMAGES is a folder")
        .filter_map(|entry| {
            let entry = entry.ok()?;
            entry.path().join("index.json").exists().then(|| (entry.file_name().to_string_lossy().into(), entry.path()))
        })
        .collect();
    found.sort();
    assert!(found.len() >= 10, "only {} images", found.len());
    found
}

fn tagged(name: &str, layout: &Path) -> String {
    format!("oci:{}:truth/{name}:latest", layout.display())
}

fn unknowns(dna: &Value) -> String {
    let mut kinds = std::collections::BTreeMap::<&str, usize>::new();
    for unknown in dna["unknowns"].as_array().into_iter().flatten() {
        *kinds.entry(unknown["what"].as_str().unwrap_or("?")).or_default() += 1;
    }
    kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn every_image_is_pulled_and_analyzed() {
    let registry = Registry::start(Access::Anonymous);
    let predictions = env::var_os("PREDICTIONS").map(PathBuf::from);
    println!("{:16} {:>7} {:>9} {:>6} {:>6}  unknown", "image", "ms", "programs", "exec", "load");
    for (name, layout) in layouts() {
        registry.push(&tagged(&name, &layout), &format!("truth/{name}:latest"), &[]);
        let reference = registry.reference(&format!("truth/{name}:latest"));
        let pulled = mayfly(["analyze", &reference, "--format", "json", "--plain-http", "--no-cache"]).ok();
        let again = mayfly(["analyze", &tagged(&name, &layout), "--format", "json"]).ok();
        assert!(pulled.stdout == again.stdout, "{name}: the layout and the registry give different DNA");
        let dna = pulled.json();
        let count = |key: &str| dna["behavior"][key].as_array().map_or(0, Vec::len);
        println!(
            "{name:16} {:>7} {:>9} {:>6} {:>6}  {}",
            pulled.wall.as_millis(),
            dna["programs"].as_array().map_or(0, Vec::len),
            count("exec"),
            count("load"),
            unknowns(&dna)
        );
        assert!(count("exec") >= 1, "{name}: nothing is executed");
        if let Some(folder) = &predictions {
            fs::write(folder.join(format!("{name}.json")), &pulled.stdout).expect("written");
        }
    }
}

#[test]
fn the_schema_holds_for_every_image() {
    let schema = mayfly(["schema"]).ok().json();
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    for (name, layout) in layouts() {
        let dna = mayfly(["analyze", &tagged(&name, &layout), "--format", "json"]).ok().json();
        let errors: Vec<_> = validator.iter_errors(&dna).map(|e| format!("{} at {}", e, e.instance_path())).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
}

/// A package as both programs tell it: type in syft's words, name, version; the version is empty where none is known.
type Listed = (String, String, String);

/// What our SBOM lists.
fn ours(name: &str, layout: &Path) -> BTreeSet<Listed> {
    let sbom = mayfly(["analyze", &tagged(name, layout), "--format", "cyclonedx"]).ok().json();
    let components = sbom["components"].as_array().expect("a list").iter();
    let packages = components.filter_map(|part| {
        let properties = part["properties"].as_array()?;
        let kind = properties.iter().find(|property| property["name"] == "mayfly:package-type")?;
        let kind = match kind["value"].as_str()? {
            "pypi" => "python",
            "maven" => "java-archive",
            "golang" => "go-module",
            "cargo" => "rust-crate",
            "composer" => "php-composer",
            "nuget" => "dotnet",
            same => same,
        };
        Some((
            kind.to_owned(),
            part["name"].as_str()?.to_owned(),
            part["version"].as_str().unwrap_or_default().to_owned(),
        ))
    });
    packages.collect()
}

/// What syft lists, without the differences that docs/sbom.md explains.
fn syfts(listing: &Value, ours: &BTreeSet<Listed>) -> BTreeSet<Listed> {
    let artifacts = listing["artifacts"].as_array().expect("a list").iter();
    let packages = artifacts.filter(|artifact| artifact["type"] != "binary").map(|artifact| {
        let text = |key: &str| artifact[key].as_str().expect("text").to_owned();
        let version = Some(text("version")).filter(|version| !matches!(version.as_str(), "UNKNOWN" | "(devel)"));
        let listed = (text("type"), text("name"), version.unwrap_or_default());
        let unknown = (listed.0.clone(), listed.1.clone(), String::new());
        // A version that syft guesses from the strings of a Go program; to us it is unknown.
        if listed.0 == "go-module" && ours.contains(&unknown) { unknown } else { listed }
    });
    packages.collect()
}

#[test]
fn the_package_list_is_syft_s() {
    let syft = env::var_os("SYFT").expect("SYFT names the syft program: see .ci/run");
    for (name, layout) in layouts() {
        let mut command = std::process::Command::new(&syft);
        command.args(["scan", "-q", "-o", "json", &format!("oci-dir:{}", layout.display())]);
        let listing = run(command.env("SYFT_CHECK_FOR_APP_UPDATE", "false")).ok().json();
        let ours = ours(&name, &layout);
        let theirs = syfts(&listing, &ours);
        let missing: Vec<_> = theirs.difference(&ours).collect();
        let surplus: Vec<_> = ours.difference(&theirs).collect();
        println!("{name:16} {:>5} packages", ours.len());
        assert!(missing.is_empty() && surplus.is_empty(), "{name}: only syft {missing:?}, only here {surplus:?}");
    }
}

#[test]
fn sboms_are_valid_to_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let python = env::var_os("SBOM_PYTHON").expect("SBOM_PYTHON names a Python with the validators: see .ci/run");
    let check = "import sys\n\
        from cyclonedx.validation.json import JsonStrictValidator\nfrom cyclonedx.schema import SchemaVersion\n\
        from spdx_tools.spdx.parser.parse_anything import parse_file\n\
        from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document\n\
        bad = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())\n\
        assert bad is None, bad\n\
        bad = validate_full_spdx_document(parse_file(sys.argv[2]))\n\
        assert not bad, bad[:3]\n";
    for (name, layout) in layouts() {
        let path = |format: &str| folder.path().join(format!("{name}.{format}.json")).display().to_string();
        let (cyclonedx, spdx) = (path("cyclonedx"), path("spdx"));
        for (format, file) in [("cyclonedx", &cyclonedx), ("spdx", &spdx)] {
            mayfly(["analyze", &tagged(&name, &layout), "--format", format, "-o", file]).ok();
        }
        let done = run(std::process::Command::new(&python).args(["-c", check, &cyclonedx, &spdx]));
        assert_eq!(done.code, 0, "{name}: {}", done.stderr);
    }
}

#[test]
fn hardly_a_program_the_kernel_saw_is_missing() {
    let truth = PathBuf::from(env::var_os("TRUTH").expect("TRUTH names the folder of recorded runs: see .ci/run"));
    let (mut seen, mut predicted) = (0, 0);
    for (name, layout) in layouts() {
        let file = truth.join(format!("{name}.json"));
        let record = fs::read(&file).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
        let record: Value = serde_json::from_slice(&record).expect("JSON");
        let dna = mayfly(["analyze", &tagged(&name, &layout), "--format", "json"]).ok().json();
        let known: BTreeSet<_> = dna["behavior"]["exec"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|item| item["path"].as_str())
            .collect();
        let missed: Vec<_> = record["exec"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(Value::as_str)
            .filter(|path| !known.contains(path))
            .collect();
        let all = record["exec"].as_array().map_or(0, Vec::len);
        seen += all;
        predicted += all - missed.len();
        println!("{name:16} {:>3} of {all:>3} programs, missed {missed:?}", all - missed.len());
    }
    println!("{predicted} of {seen} programs executed were predicted");
    assert!(seen > 0 && predicted * 10 >= seen * 7, "{predicted} of {seen}");
}
