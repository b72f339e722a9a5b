//! Amazon ECR: keys of an identity are exchanged for a password. Sources: AWS, "Private registry authentication in Amazon
//! ECR", `GetAuthorizationToken`, `AssumeRoleWithWebIdentity`, "Container credential provider", "IMDSv2".

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use base64::Engine as _;
use reqwest::{Method, Url};
use serde::Deserialize;

use super::{
    Asking, Fetched, get, header, json, post,
    sigv4::{Keys, Scope, authorization},
};
use crate::{
    Error,
    registry::{credentials::Credential, time},
};

/// A private registry.
pub(super) struct Host {
    region: String,
    api: String,
}

/// Keys of an identity.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Identity {
    access_key_id: String,
    secret_access_key: String,
    #[serde(alias = "SessionToken")]
    token: Option<String>,
    /// RFC 3339.
    expiration: Option<String>,
}

impl Host {
    /// `ACCOUNT.dkr.ecr[-fips].REGION.amazonaws.com[.cn]` or `ACCOUNT.dkr-ecr[-fips].REGION.on.aws`.
    pub(super) fn of(host: &str) -> Option<Self> {
        let (account, rest) = host.split_once('.')?;
        let (kind, rest) = ["dkr.ecr.", "dkr.ecr-fips.", "dkr-ecr.", "dkr-ecr-fips."]
            .iter()
            .find_map(|kind| rest.strip_prefix(kind).map(|rest| (*kind, rest)))?;
        let (region, domain) = rest.split_once('.')?;
        let is_region = region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let is_account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        if !is_account || !is_region || region.is_empty() {
            return None;
        }
        let fips = kind.ends_with("-fips.");
        let api = match domain {
            "amazonaws.com" | "amazonaws.com.cn" if kind.starts_with("dkr.") => {
                format!("{}.{region}.{domain}", if fips { "ecr-fips" } else { "api.ecr" })
            }
            "on.aws" if kind.starts_with("dkr-") => {
                format!("{}.{region}.api.aws", if fips { "ecr-fips" } else { "ecr" })
            }
            _ => return None,
        };
        Some(Self { region: region.to_owned(), api })
    }
}

pub(super) async fn fetch(asking: &Asking<'_>, host: &Host) -> Result<Fetched, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        authorization_data: Vec<Authorization>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Authorization {
        authorization_token: String,
        expires_at: Option<f64>,
    }
    let what = "Amazon ECR";
    let identity = identity(asking, &host.region).await?;
    let url = asking.endpoint("AWS_ENDPOINT_URL_ECR", &format!("https://{}/", host.api))?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let mut call = get(url);
    call.method = Method::POST;
    call.body = Some(b"{}".to_vec());
    sign(&mut call, &identity, &host.region, &time::basic_of(now));
    let (_, body) = asking.service(&call, what).await?;
    let answer: Answer = json(&body, what)?;
    let malformed = || Error::malformed(what, "its answer holds no password");
    let given = answer.authorization_data.into_iter().next().ok_or_else(malformed)?;
    let text = base64::engine::general_purpose::STANDARD.decode(given.authorization_token).ok();
    let text = text.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(malformed)?;
    let (user, password) = text.split_once(':').ok_or_else(malformed)?;
    let credential = Credential::Basic { user: user.to_owned(), password: password.to_owned() };
    // A float in seconds; what is no time is none.
    let until = given.expires_at.and_then(|at| Duration::try_from_secs_f64(at).ok());
    let life = until.map_or(USUAL_LIFE, |until| until.saturating_sub(Duration::from_secs(now)));
    // A password of keys that end is not relied on beyond them.
    let keys = identity.expiration.as_deref().and_then(time::seconds_of).and_then(|end| end.checked_sub(now));
    let life = keys.map_or(life, |keys| life.min(Duration::from_secs(keys)));
    Ok(Fetched { credential, life })
}

fn sign(call: &mut super::Call, identity: &Identity, region: &str, time: &str) {
    let host = call.url.host_str().unwrap_or_default().to_owned();
    let host = call.url.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
    let mut headers = vec![("content-type", JSON), ("host", &host), ("x-amz-date", time)];
    headers.extend(identity.token.as_deref().map(|token| ("x-amz-security-token", token)));
    headers.push(("x-amz-target", TARGET));
    let keys = Keys { id: &identity.access_key_id, secret: &identity.secret_access_key };
    let scope = Scope { time, region, service: "ecr" };
    let signature = authorization(&keys, &scope, "POST", &headers, call.body.as_deref().unwrap_or_default());
    header(call, "authorization", &signature);
    header(call, "content-type", JSON);
    header(call, "x-amz-date", time);
    header(call, "x-amz-target", TARGET);
    if let Some(token) = &identity.token {
        header(call, "x-amz-security-token", token);
    }
}

/// Keys, in the order in which AWS' libraries look for them.
async fn identity(asking: &Asking<'_>, region: &str) -> Result<Identity, Error> {
    let variable = |name| asking.variable(name).map(str::to_owned);
    if let (Some(id), Some(secret)) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
        let token = variable("AWS_SESSION_TOKEN");
        return Ok(Identity { access_key_id: id, secret_access_key: secret, token, expiration: None });
    }
    if let (Some(role), Some(token)) = (asking.variable("AWS_ROLE_ARN"), asking.file("AWS_WEB_IDENTITY_TOKEN_FILE")?) {
        return web_identity(asking, region, role, &token).await;
    }
    if let Some(identity) = container(asking).await? {
        return Ok(identity);
    }
    match asking.variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        true => Err(Error::malformed("the environment", "it names no Amazon identity")),
        false => machine(asking).await,
    }
}

/// A pod's role by its service account (IRSA).
async fn web_identity(asking: &Asking<'_>, region: &str, role: &str, token: &str) -> Result<Identity, Error> {
    let what = "Amazon STS";
    let region = asking.variable("AWS_REGION").unwrap_or(region);
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let url = asking.endpoint("AWS_ENDPOINT_URL_STS", &format!("https://sts.{region}.{domain}/"))?;
    let pairs = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", role),
        ("RoleSessionName", asking.variable("AWS_ROLE_SESSION_NAME").unwrap_or("mayfly")),
        ("WebIdentityToken", token),
    ];
    let (_, body) = asking.service(&post(url, &pairs), what).await?;
    let xml = String::from_utf8(body).unwrap_or_default();
    let element = |name: &str| {
        let (_, rest) = xml.split_once(&format!("<{name}>"))?;
        rest.split_once('<').map(|(text, _)| text.trim().to_owned())
    };
    match (element("AccessKeyId"), element("SecretAccessKey"), element("SessionToken")) {
        (Some(access_key_id), Some(secret_access_key), Some(token)) => {
            Ok(Identity { access_key_id, secret_access_key, token: Some(token), expiration: element("Expiration") })
        }
        _ => Err(Error::malformed(what, "its answer holds no keys")),
    }
}

/// A pod's or task's role by an agent beside it (EKS Pod Identity, ECS). None: there is none.
async fn container(asking: &Asking<'_>) -> Result<Option<Identity>, Error> {
    let what = "the container credentials' endpoint";
    let full = asking.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI").map(str::to_owned);
    let relative = asking.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let Some(text) = relative.map(|path| format!("http://169.254.170.2{path}")).or(full) else { return Ok(None) };
    let url: Url = text.parse().map_err(|_| Error::malformed(what, "it is no address"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let beside = host == "localhost" || loopback || AGENTS.contains(&host);
    // What is shown to it must not leave the machine in clear.
    if url.scheme() != "https" && !beside {
        return Err(Error::malformed(what, "it is neither on this machine nor reached by HTTPS"));
    }
    let mut call = get(url);
    let token = match asking.file("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")? {
        Some(token) => Some(token),
        None => asking.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(str::to_owned),
    };
    if let Some(token) = token {
        header(&mut call, "authorization", &token);
    }
    let (_, body) = asking.metadata(&call, what).await?;
    json(&body, what).map(Some)
}

/// A machine's role.
async fn machine(asking: &Asking<'_>) -> Result<Identity, Error> {
    let what = "Amazon's metadata service";
    let base = asking.endpoint("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254/")?;
    let at = |path: &str| base.join(path).map_err(|_| Error::malformed(what, "its address is malformed"));
    let mut call = get(at("/latest/api/token")?);
    call.method = Method::PUT;
    header(&mut call, "x-aws-ec2-metadata-token-ttl-seconds", "300");
    let (_, token) = asking.metadata(&call, what).await?;
    let token = String::from_utf8(token).unwrap_or_default();
    let ask = async |path: &str| {
        let mut call = get(at(path)?);
        header(&mut call, "x-aws-ec2-metadata-token", token.trim());
        asking.metadata(&call, what).await.map(|(_, body)| body)
    };
    let roles = String::from_utf8(ask(ROLES).await?).unwrap_or_default();
    let role = roles.lines().next().map(str::trim).filter(|role| !role.is_empty() && !role.contains(['/', '?', '#']));
    let role = role.ok_or_else(|| Error::malformed(what, "the machine has no role"))?;
    json(&ask(&format!("{ROLES}{role}")).await?, what)
}

const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
const JSON: &str = "application/x-amz-json-1.1";
/// Of ECS and of EKS Pod Identity. Source: AWS, "Container credential provider".
const AGENTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];
const USUAL_LIFE: Duration = Duration::from_secs(12 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_amazons_own_hosts_are_private_registries() {
        let api = |host: &str| Host::of(host).map(|host| (host.region, host.api));
        let found = |region: &str, api: &str| Some((region.to_owned(), api.to_owned()));
        assert_eq!(
            api("123456789012.dkr.ecr.eu-west-1.amazonaws.com"),
            found("eu-west-1", "api.ecr.eu-west-1.amazonaws.com")
        );
        assert_eq!(
            api("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com"),
            found("us-east-1", "ecr-fips.us-east-1.amazonaws.com")
        );
        assert_eq!(
            api("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn"),
            found("cn-north-1", "api.ecr.cn-north-1.amazonaws.com.cn")
        );
        assert_eq!(api("123456789012.dkr-ecr.eu-west-1.on.aws"), found("eu-west-1", "ecr.eu-west-1.api.aws"));
        for other in [
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.io",
            "123456789012.dkr.ecr.evil.io",
            "123456789012.dkr.ecr.evil/.amazonaws.com",
            "evil.dkr.ecr.eu-west-1.amazonaws.com",
            "123456789012.dkr.ecr..amazonaws.com",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com:8443",
            "public.ecr.aws",
            "docker.io",
        ] {
            assert_eq!(api(other), None, "{other}");
        }
    }
}
