//! The clouds' services, played on loopback.

use std::io::Write as _;

use super::*;
use crate::registry::tests::{Asked, Server, quick, reply};

const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

fn cloud(variables: &[(&str, &str)]) -> Cloud {
    Cloud::new(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

/// What the cloud gives for `host`, asked `times` times.
fn ask(cloud: &Cloud, host: &str, times: usize) -> Result<Option<Credential>, Error> {
    let settings = Settings { retries: 0, ..quick() };
    run(async {
        let patience = Patience { settings: &settings, deadline: None };
        let mut last = cloud.credential(host, patience).await;
        for _ in 1..times {
            last = cloud.credential(host, patience).await;
        }
        last
    })
}

fn basic(user: &str, password: &str) -> Option<Credential> {
    Some(Credential::Basic { user: user.to_owned(), password: password.to_owned() })
}

fn has(asked: &Asked, line: &str) -> bool {
    asked.head.iter().any(|field| field.eq_ignore_ascii_case(line))
}

fn body(asked: &Asked) -> String {
    String::from_utf8_lossy(&asked.body).into_owned()
}

fn secret_file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

/// `AWS:pass`, for twelve hours; and the other services of Amazon, which give the keys `id` and `secret`.
fn amazon(asked: &Asked) -> Vec<u8> {
    let until = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs() + 43_200;
    let keys = r#"{"Code":"Success","AccessKeyId":"id","SecretAccessKey":"secret","Token":"session","Expiration":"2099-01-01T00:00:00Z"}"#;
    match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", "/ecr/") => {
            let signed = asked.authorization.starts_with("AWS4-HMAC-SHA256 Credential=id/")
                && asked
                    .authorization
                    .contains("/eu-west-1/ecr/aws4_request, SignedHeaders=content-type;host;x-amz-date;")
                && has(asked, "x-amz-target: AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken");
            let answer = format!(
                r#"{{"authorizationData":[{{"authorizationToken":"QVdTOnBhc3M=","expiresAt":{until}.5,"proxyEndpoint":"https://x"}}]}}"#
            );
            if signed { reply(200, "", answer.as_bytes()) } else { reply(400, "", b"hunter2") }
        }
        ("POST", "/sts/")
            if body(asked).contains("WebIdentityToken=jwt&") || body(asked).ends_with("WebIdentityToken=jwt") =>
        {
            let xml = "<R><Credentials><SessionToken>session</SessionToken><SecretAccessKey>secret</SecretAccessKey><Expiration>2099-01-01T00:00:00Z</Expiration><AccessKeyId>id</AccessKeyId></Credentials></R>";
            reply(200, "Content-Type: text/xml\r\n", xml.as_bytes())
        }
        ("GET", "/agent") if asked.authorization == "jwt" => reply(200, "", keys.as_bytes()),
        ("PUT", "/latest/api/token") if has(asked, "x-aws-ec2-metadata-token-ttl-seconds: 300") => {
            reply(200, "", b"imds")
        }
        ("GET", "/latest/meta-data/iam/security-credentials/") if has(asked, "x-aws-ec2-metadata-token: imds") => {
            reply(200, "", b"node-role\n")
        }
        ("GET", "/latest/meta-data/iam/security-credentials/node-role")
            if has(asked, "x-aws-ec2-metadata-token: imds") =>
        {
            reply(200, "", keys.as_bytes())
        }
        _ => reply(404, "", b"hunter2"),
    }
}

#[test]
fn amazons_identities_are_found_in_the_order_of_its_libraries() {
    let server = Server::start(|asked, _| amazon(asked));
    let at = |path: &str| format!("http://{}{path}", server.address);
    let token = secret_file("jwt\n");
    let token = token.path().to_str().expect("UTF-8");
    let (ecr, sts, agent, imds) = (at("/ecr/"), at("/sts/"), at("/agent"), at("/"));
    let ways: [(&str, Vec<(&str, &str)>); 4] = [
        ("/ecr/", vec![("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")]),
        (
            "/sts/",
            vec![("AWS_ENDPOINT_URL_STS", &sts), ("AWS_ROLE_ARN", "arn:r"), ("AWS_WEB_IDENTITY_TOKEN_FILE", token)],
        ),
        (
            "/agent",
            vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI", &agent), ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token)],
        ),
        ("node-role", vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", &imds)]),
    ];
    let mut all = vec![("AWS_ENDPOINT_URL_ECR", ecr.as_str())];
    for (path, variables) in ways.into_iter().rev() {
        // Those before stay: the earlier one in the order wins.
        all.extend(variables);
        let before = server.asked(path).len();
        assert_eq!(ask(&cloud(&all), ECR, 3).expect("asked"), basic("AWS", "pass"), "{path}");
        assert_eq!(server.asked(path).len(), before + 1, "{path}: asked once, kept then");
    }
}

#[test]
fn keys_are_never_sent_in_clear_beyond_the_machine() {
    let elsewhere = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://198.51.100.1/x")];
    let error = ask(&cloud(&elsewhere), ECR, 1).expect_err("refused").to_string();
    assert!(error.contains("neither on this machine nor reached by HTTPS"), "{error}");
}

#[test]
fn failures_are_remembered_and_show_no_secret() {
    let server = Server::start(|_, _| reply(403, "", b"hunter2"));
    let at = format!("http://{}/", server.address);
    let cloud =
        cloud(&[("AWS_ENDPOINT_URL_ECR", &at), ("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hunter2")]);
    let error = ask(&cloud, ECR, 3).expect_err("refused");
    assert!(matches!(error, Error::Credentials { .. }), "{error}");
    assert!(!format!("{error} {error:?} {cloud:?}").contains("hunter2"), "{error}");
    assert_eq!(server.asked("").len(), 1);
    run(cloud.forget(ECR));
    assert!(ask(&cloud, ECR, 1).is_err());
    assert_eq!(server.asked("").len(), 2);
}

#[test]
fn googles_token_is_the_password() {
    let genuine = Server::start(|asked, _| match has(asked, "metadata-flavor: Google") {
        true => reply(
            200,
            "Metadata-Flavor: Google\r\n",
            br#"{"access_token":"t","expires_in":3599,"token_type":"Bearer"}"#,
        ),
        false => reply(403, "", b""),
    });
    for host in ["europe-docker.pkg.dev", "gcr.io", "eu.gcr.io"] {
        let cloud = cloud(&[("GCE_METADATA_HOST", &genuine.address)]);
        assert_eq!(ask(&cloud, host, 2).expect("asked"), basic("oauth2accesstoken", "t"));
    }
    assert_eq!(genuine.asked("/computeMetadata/v1/instance/service-accounts/default/token").len(), 3);
    let other = Server::start(|_, _| reply(200, "", br#"{"access_token":"t","expires_in":3599}"#));
    assert!(ask(&cloud(&[("GCE_METADATA_HOST", &other.address)]), "gcr.io", 1).is_err());
    let soon =
        Server::start(|_, _| reply(200, "Metadata-Flavor: Google\r\n", br#"{"access_token":"t","expires_in":0}"#));
    assert!(ask(&cloud(&[("GCE_METADATA_HOST", &soon.address)]), "gcr.io", 2).is_ok());
    assert_eq!(soon.asked("").len(), 2, "what is over is asked for again");
}

#[test]
fn azures_token_is_exchanged_at_the_registry() {
    let server = Server::start(|asked, _| match asked.path.split('?').next() {
        Some("/tenant/oauth2/v2.0/token") if body(asked).contains("client_assertion=jwt") => {
            reply(200, "", br#"{"access_token":"aad","expires_in":3599}"#)
        }
        Some("/metadata/identity/oauth2/token") if has(asked, "metadata: true") => {
            reply(200, "", br#"{"access_token":"aad","expires_in":"86399"}"#)
        }
        Some("/oauth2/exchange") if body(asked).contains("service=x.azurecr.io&access_token=aad") => {
            reply(200, "", br#"{"refresh_token":"r"}"#)
        }
        _ => reply(404, "", b""),
    });
    let at = format!("http://{}/", server.address);
    let token = secret_file("jwt");
    let federated = [
        ("AZURE_AUTHORITY_HOST", at.as_str()),
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_FEDERATED_TOKEN_FILE", token.path().to_str().expect("UTF-8")),
    ];
    for variables in [&federated[..], &[("AZURE_POD_IDENTITY_AUTHORITY_HOST", at.as_str())]] {
        let settings = quick();
        let cloud = cloud(variables);
        let patience = Patience { settings: &settings, deadline: None };
        let asking = Asking { variables: &cloud.0.variables, patience, direct: direct(&settings).expect("a client") };
        let url = format!("{at}oauth2/exchange").parse().expect("a URL");
        let fetched = run(acr::exchange_at(&asking, "x.azurecr.io", url)).expect("exchanged");
        assert_eq!((fetched.credential, fetched.life.as_secs() >= 3599), (Credential::Refresh("r".to_owned()), true));
    }
}

#[test]
fn other_hosts_are_no_clouds() {
    for host in ["docker.io", "gcr.io.evil.io", "evilgcr.io", "azurecr.io", "x.azurecr.io.evil.io", "pkg.dev"] {
        let cloud = cloud(&[]);
        assert!(!cloud.serves(host), "{host}");
        assert_eq!(ask(&cloud, host, 1).expect("nothing asked"), None);
    }
}
