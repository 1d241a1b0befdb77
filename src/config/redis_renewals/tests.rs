use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};

use super::{Endpoint, OPTION, RedisRenewals, WhenUnreachable};
use crate::test_support::pem;

#[test]
fn urls_are_read() {
    let tls = |host, port| Parts { host, port, is_tls: true, ..Parts::default() };
    let plain = |host, port| Parts { host, port, ..Parts::default() };
    for (url, parts) in [
        ("redis://localhost", plain("localhost", 6379)),
        ("redis://localhost/", plain("localhost", 6379)),
        ("  redis://localhost:7000\n", plain("localhost", 7000)),
        ("REDIS://localhost:7000/0", plain("localhost", 7000)),
        ("redis://10.0.0.1:1/15", Parts { database: 15, ..plain("10.0.0.1", 1) }),
        ("redis://cache.internal:65535/65535", Parts { database: 65535, ..plain("cache.internal", 65535) }),
        ("redis://[::1]", plain("::1", 6379)),
        ("redis://[2001:db8::1]:7000/1", Parts { database: 1, ..plain("2001:db8::1", 7000) }),
        ("rediss://cache.example", tls("cache.example", 6379)),
        ("rediss://[::1]:7000", tls("::1", 7000)),
        ("redis://alice@localhost", Parts { username: Some("alice"), ..plain("localhost", 6379) }),
        ("redis://:secret@localhost", Parts { password: Some("secret"), ..plain("localhost", 6379) }),
        (
            "rediss://alice:secret@cache.example:7000/2",
            Parts { username: Some("alice"), password: Some("secret"), database: 2, ..tls("cache.example", 7000) },
        ),
        (
            "redis://%C3%A5lice:%40%2F%3F%23%25%3A%20@localhost",
            Parts { username: Some("ålice"), password: Some("@/?#%: "), ..plain("localhost", 6379) },
        ),
        ("redis://:a:b@localhost", Parts { password: Some("a:b"), ..plain("localhost", 6379) }),
        ("redis://:a@b@localhost", Parts { password: Some("a@b"), ..plain("localhost", 6379) }),
        ("redis://:100%@localhost", Parts { password: Some("100%"), ..plain("localhost", 6379) }),
        ("redis://:@localhost", plain("localhost", 6379)),
    ] {
        let renewals = RedisRenewals::new(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(Parts::of(&renewals.endpoint), parts, "{url}");
        renewals.clone().check().unwrap_or_else(|error| panic!("{url}: {error}"));
        let shown = format!("{renewals:?}");
        assert!(!shown.contains("secret") && !shown.contains("alice"), "{shown}");
    }
}

#[test]
fn urls_that_cannot_be_used_are_refused_with_the_reason() {
    for (url, why) in [
        ("", "is not like `redis://host:6379`"),
        ("localhost", "is not like `redis://host:6379`"),
        ("localhost:6379", "does not start with `redis://`"),
        ("http://:s3cr3t@localhost", "does not start with `redis://`"),
        ("redis+sentinel://:s3cr3t@localhost", "does not start with `redis://`"),
        ("unix:///run/redis.sock", "does not start with `redis://`"),
        ("redis:", "has no host"),
        ("redis://", "has no host"),
        ("redis:///0", "has no host"),
        ("redis:localhost", "has no host"),
        ("redis://localhost:port", "is not like `redis://host:6379` (invalid port number)"),
        ("redis://localhost:65536", "is not like `redis://host:6379` (invalid port number)"),
        ("redis://[::1", "is not like `redis://host:6379`"),
        ("redis://localhost/one", "is not the number of a database"),
        ("redis://localhost/-1", "is not the number of a database"),
        ("redis://localhost/65536", "is not the number of a database"),
        ("redis://localhost/0/1", "is not the number of a database"),
        ("redis://localhost//", "is not the number of a database"),
        ("redis://localhost?db=1", "has a query or a fragment"),
        ("redis://localhost/0#a", "has a query or a fragment"),
        ("redis://:%FFs3cr3t@localhost", "is not UTF-8"),
        ("redis://%FF:s3cr3t@localhost", "is not UTF-8"),
        // Users and passwords that are not encoded look like other parts of the URL.
        ("redis://:s3/cr3t@localhost", "percent-encode it"),
        ("redis://:s3cr3t/@localhost", "percent-encode it"),
        ("redis://:s3cr3t?@localhost", "percent-encode it"),
        ("redis://:s3cr3t#@localhost", "percent-encode it"),
        ("redis://alice:s3cr3t/x@localhost:6379/0", "percent-encode it"),
        ("redis://alice:12/s3cr3t@localhost", "percent-encode it"),
        ("redis://alice:12?s3cr3t@localhost", "percent-encode it"),
        ("redis://alice:12#s3cr3t@localhost", "percent-encode it"),
        ("redis://alice/s3cr3t@localhost", "percent-encode it"),
    ] {
        let error = RedisRenewals::new(url).map(drop).expect_err(url);
        assert_eq!(error.option(), OPTION, "{url}");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(why), "{url}: {shown}");
        assert!(!shown.contains("s3"), "{url}: {shown}");
    }
}

#[test]
fn options_that_cannot_be_used_are_refused_by_name() {
    let plain = || RedisRenewals::new("redis://:s3cr3t@localhost").unwrap();
    let tls = || RedisRenewals::new("rediss://:s3cr3t@localhost").unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = pem("CERTIFICATE", CertificateParams::default().self_signed(&key).unwrap().der());
    let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (renewals, option, why) in [
        (plain().prefix(""), "prefix", "1 to 64 letters"),
        (plain().prefix("a".repeat(65)), "prefix", "1 to 64 letters"),
        (plain().prefix("a b"), "prefix", "`a b`"),
        (plain().prefix("a{b}"), "prefix", "`a{b}`"),
        (plain().prefix("é\n"), "prefix", r"`é\n`"),
        (plain().time_limit(Duration::ZERO), "time_limit", "between 1 ms and 1 s"),
        (plain().time_limit(Duration::from_micros(999)), "time_limit", "between 1 ms and 1 s"),
        (plain().time_limit(Duration::from_millis(1001)), "time_limit", "between 1 ms and 1 s"),
        (plain().pepper("s3cr3t"), "pepper", "use 32 random ones"),
        (plain().pepper("s3cr3t-s3cr3t-1"), "pepper", "shorter than 16 bytes"),
        (plain().ca_certificates(certificate.as_bytes()), "ca_certificates", "not `rediss://`"),
        (tls().ca_certificates(""), "ca_certificates", "pass the text of a PEM file"),
        (
            tls().ca_certificates(pem("PRIVATE KEY", key.serialized_der())),
            "ca_certificates",
            "pass the text of a PEM file",
        ),
        (tls().ca_certificates(vec![0x30, 0x82]), "ca_certificates", "pass the text of a PEM file"),
        (tls().ca_certificates(junk), "ca_certificates", "is not a certificate"),
        (tls().ca_certificates("-----BEGIN CERTIFICATE-----\n"), "ca_certificates", "not in PEM"),
    ] {
        let error = renewals.clone().check().unwrap_err();
        assert_eq!(error.option().strip_prefix("share_renewals."), Some(option), "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert!(!format!("{error} {error:?} {renewals:?}").contains("s3cr3t"), "{error}");
    }
    for mut renewals in [
        plain().prefix("a".repeat(64)).time_limit(Duration::from_secs(1)).when_unreachable(WhenUnreachable::Wait),
        plain().prefix("Az0-_.:").time_limit(Duration::from_millis(1)).pepper("s3cr3t-s3cr3t-16"),
        tls(),
        tls().ca_certificates(certificate.repeat(2)),
    ] {
        renewals.check().unwrap();
    }
}

#[derive(Debug, Default, PartialEq)]
struct Parts<'a> {
    host: &'a str,
    port: u16,
    username: Option<&'a str>,
    password: Option<&'a str>,
    database: i64,
    is_tls: bool,
}

impl<'a> Parts<'a> {
    fn of(endpoint: &'a Endpoint) -> Self {
        let Endpoint { host, port, username, password, database, is_tls, .. } = endpoint;
        let (username, password) = (username.as_deref(), password.as_ref().map(|password| &**password));
        Self { host, port: *port, username, password, database: *database, is_tls: *is_tls }
    }
}
