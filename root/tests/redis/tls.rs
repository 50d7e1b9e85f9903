//! Tests of Redis by TLS.

use std::path::Path;
use std::process::Command;

use peersock_root::server::RedisConfig;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::setup::{Client, Folder, Redis, Serving, config_of, is_partial, wait_until};

/// Environment variables that tell the test below its URL and the expected outcome.
const URL: &str = "PEERSOCK_TEST_REDIS";
const IS_GOOD: &str = "PEERSOCK_TEST_REDIS_IS_GOOD";

#[test]
fn a_redis_by_tls_is_used_if_its_certificate_is_good_and_refused_with_the_reason_if_not() {
    let folder = Folder::new("redis-tls");
    let authority = Authority::new("one");
    authority.write(folder.path());
    std::fs::write(folder.path().join("other.pem"), Authority::new("another").pem).expect("written");
    let Some((_redis, port)) = Redis::start_tls(folder.path()) else { return };
    let run = |host: &str, roots: &str| {
        // The trusted certificates come from the environment, which no test may change for others.
        let test = std::env::current_exe().expect("this program");
        let output = Command::new(test)
            .args(["--exact", "tls::roots_in_an_environment_of_their_own", "--ignored", "--nocapture"])
            .env("SSL_CERT_FILE", folder.path().join(roots))
            .env_remove("SSL_CERT_DIR")
            .env(URL, format!("rediss://{host}:{port}"))
            .env(IS_GOOD, if (host, roots) == ("localhost", "ca.pem") { "yes" } else { "no" })
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{host}, {roots}: {text}");
        text
    };
    let good = run("localhost", "ca.pem");
    assert!(good.contains("the directory is shared"), "{good}");
    for (host, roots, reason) in
        [("localhost", "other.pem", "UnknownIssuer"), ("127.0.0.1", "ca.pem", "not valid for name")]
    {
        let refused = run(host, roots);
        assert!(refused.contains("the shared directory is away"), "{refused}");
        assert!(refused.contains(reason), "{refused}");
    }
}

#[test]
#[ignore = "run by the test above: in an environment of its own"]
fn roots_in_an_environment_of_their_own() {
    let Ok(url) = std::env::var(URL) else { return };
    tracing_subscriber::fmt().with_writer(std::io::stdout).init();
    let config = RedisConfig::new(&url, None).expect("a URL");
    let [a, b] = [201, 202].map(|seed| Serving::start(config_of(seed), config.clone()));
    let (mut seeker, sought) = (Client::register(1, &a, b""), Client::register(2, &b, b""));
    if std::env::var(IS_GOOD).as_deref() == Ok("yes") {
        seeker.wait_for_referral(&sought);
    } else {
        wait_until("both were refused", || {
            [&a, &b].iter().all(|root| root.traffic.directory_failures.get() > 1)
        });
        assert!(is_partial(&seeker.look_up(&sought)));
    }
}

/// Authority that signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = pem("CERTIFICATE", params.self_signed(&key).expect("signed").der());
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes its certificate, and one for `localhost` with its key.
    fn write(&self, folder: &Path) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let files = [
            ("ca.pem", self.pem.clone()),
            ("server.pem", pem("CERTIFICATE", certificate.der())),
            ("server.key", pem("PRIVATE KEY", key.serialized_der())),
        ];
        for (name, text) in files {
            std::fs::write(folder.join(name), text).expect("written");
        }
    }
}

/// Encodes PEM (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----");
    for (at, three) in der.chunks(3).enumerate() {
        if at % 16 == 0 {
            text.push('\n');
        }
        let [a, b, c] = [0, 1, 2].map(|n| u32::from(three.get(n).copied().unwrap_or(0)));
        let bits = a << 16 | b << 8 | c;
        for digit in 0..4 {
            let is_padding = digit > three.len();
            let index = (bits >> (18 - 6 * digit) & 63) as usize;
            text.push(if is_padding { '=' } else { char::from(DIGITS[index]) });
        }
    }
    text + &format!("\n-----END {label}-----\n")
}
