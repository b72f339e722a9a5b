//! Mirrors, proxies and certificates of single registries.

use super::*;

/// Settings with mirrors of `origin`.
fn mirrored(origin: &Server, mirrors: &[&Server], mirror_tags: bool) -> Hosts {
    let mirrors = mirrors.iter().map(|mirror| format!("{}/hub", mirror.address).parse().expect("a mirror")).collect();
    Hosts { host: [(origin.address.clone(), Host { mirrors, mirror_tags, ..Host::default() })].into() }
}

/// A mirror that has what `team/app` has, below `hub`.
fn mirror(special: impl Fn(&Asked) -> Option<Vec<u8>> + Send + Sync + 'static) -> Server {
    Server::start(move |asked, _| {
        let path = asked.path.replace("/v2/hub/team/app/", "/v2/team/app/");
        special(asked).unwrap_or_else(|| usual(&Asked { path, ..asked.clone() }))
    })
}

fn digest() -> Digest {
    Digest::sha256(&manifest("amd64"))
}

#[test]
fn what_has_a_digest_is_asked_of_mirrors_first() {
    let (origin, broken, good) =
        (Server::image(|_, _| None), mirror(|_| Some(reply(200, "", b"a lie"))), mirror(|_| None));
    let hosts = mirrored(&origin, &[&broken, &good], false);
    origin.with(
        |settings| settings.hosts = hosts,
        async |r| {
            assert!(r.manifest(digest().as_str()).await.present().is_some());
            assert_eq!(r.blob(&Digest::sha256(&layer()), 1 << 20).await.known().expect("known"), Some(layer()));
            assert_eq!(r.served().get(&good.address), Some(&2));
            assert_eq!(origin.asked("").len(), 0);
            assert!(r.manifest("1").await.present().is_some());
            let _ = r.referrers(&digest()).await;
        },
    );
    assert_eq!(origin.asked("").len(), 3, "what may change is the registry's to say");
    assert_eq!(good.asked("").len(), 2);
    let hosts = mirrored(&origin, &[&good], true);
    origin.with(|settings| settings.hosts = hosts, async |r| assert!(r.manifest("1").await.present().is_some()));
    assert_eq!((origin.asked("").len(), good.asked("").len()), (3, 3));
}

#[test]
fn it_is_absent_where_it_is_absent_everywhere() {
    let found = |at_mirror: u16, at_origin: u16| {
        let answering = |status: u16| move |_: &Asked| Some(reply(status, "", b""));
        let (special, at) = (answering(at_origin), mirror(answering(at_mirror)));
        let origin = Server::image(move |asked, _| special(asked));
        let hosts = mirrored(&origin, &[&at], false);
        let change = |settings: &mut Settings| {
            settings.hosts = hosts;
            settings.retries = 0;
        };
        origin.with(change, async |r| match r.manifest(digest().as_str()).await {
            Lookup::Present(_) => "present",
            Lookup::Absent => "absent",
            Lookup::Unknown(_) => "unknown",
        })
    };
    assert_eq!(found(404, 404), "absent");
    assert_eq!(found(404, 500), "unknown");
    assert_eq!(found(500, 404), "unknown");
    assert_eq!(found(403, 404), "unknown");
}

#[test]
fn a_mirror_is_shown_its_own_credentials_only() {
    let basic = |asked: &Asked| match asked.authorization.is_empty() {
        true => Some(reply(401, "WWW-Authenticate: Basic realm=\"r\"\r\n", b"")),
        false => Some(reply(404, "", b"")),
    };
    let (origin, at) = (Server::image(move |asked, _| basic(asked)), mirror(basic));
    let file = auth_file(&origin, "u", "p");
    let hosts = mirrored(&origin, &[&at], false);
    let change = |settings: &mut Settings| {
        settings.hosts = hosts;
        settings.credentials = files(&file);
    };
    origin.with(change, async |r| _ = r.manifest(digest().as_str()).await);
    assert!(at.asked("").iter().all(|asked| asked.authorization.is_empty()));
    assert_eq!(origin.asked("").last().map(|asked| asked.authorization.clone()).as_deref(), Some("Basic dTpw"));
}

#[test]
fn an_image_is_pulled_from_the_mirror_that_has_all_of_it() {
    let origin = Server::image(|_, _| None);
    let without_layer = mirror(|asked| is_layer(asked).then(|| reply(404, "", b"")));
    let whole = mirror(|_| None);
    let hosts = mirrored(&origin, &[&without_layer, &whole], false);
    let images = origin.open(|options| options.registry.hosts = hosts).expect("opened");
    assert_eq!(layer_bytes(&images), layer());
    assert_eq!(
        origin.asked("").iter().map(|asked| asked.path.as_str()).collect::<Vec<_>>(),
        ["/v2/team/app/manifests/1"]
    );
    assert_eq!(whole.asked("/blobs/").len(), 2);
    assert!(images.iter().all(|image| image.name.starts_with(&origin.address)), "it keeps its name");
}

#[test]
fn a_registry_has_its_own_proxy() {
    let proxy = Server::image(|asked, _| asked.path.starts_with("http://registry.test/").then(|| reply(404, "", b"")));
    let host = Host { proxy: Some(format!("http://{}", proxy.address)), plain_http: true, ..Host::default() };
    let settings = Settings { hosts: Hosts { host: [("registry.test".to_owned(), host)].into() }, ..quick() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let repository = Repository::open(&"registry.test/a/b".parse().expect("a reference"), &settings).await;
        assert!(matches!(repository.expect("opened").head("1").await, Lookup::Absent));
    });
    assert_eq!(proxy.asked("http://registry.test/v2/a/b/manifests/1").len(), 1);
}

#[test]
fn certificates_that_cannot_be_used_are_named_before_anything_is_asked() {
    let server = Server::image(|_, _| None);
    let file = tempfile::NamedTempFile::new().expect("a file");
    let client = Some((file.path().to_owned(), file.path().to_owned()));
    let error = server.open(|options| options.registry.client = client).expect_err("empty").to_string();
    assert!(error.contains("client certificate"), "{error}");
    let error = server.open(|options| options.registry.proxy = Some("http://u:hunter2@".to_owned())).expect_err("none");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    assert_eq!(server.asked("").len(), 0);
}
