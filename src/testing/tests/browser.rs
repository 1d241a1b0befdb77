use std::convert::Infallible;

use http::{Method, Request};
use tower::service_fn;

use super::*;
use crate::{
    config::CookieOptions,
    layer::CrossmintAuthLayer,
    testing::{Browser, Page},
};

/// A browser whose service answers with the request.
///
/// A query such as `?to=303:/x` redirects, and `?set=a%3Db` sets a cookie.
fn echo() -> Browser {
    Browser::new(service_fn(async |request: Request<String>| Ok::<_, Infallible>(respond(&request))), HOME)
}

fn respond(request: &Request<String>) -> http::Response<String> {
    let url: reqwest::Url = format!("https://x{}", request.uri()).parse().unwrap();
    let mut response = http::Response::builder();
    for (name, value) in url.query_pairs() {
        response = match (&*name, value.split_once(':')) {
            ("to", Some((status, target))) => {
                response.status(status.parse::<u16>().unwrap()).header("location", target)
            }
            ("set", _) => response.header("set-cookie", &*value),
            _ => panic!("{name}"),
        };
    }
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap());
    let seen = json!({
        "line": format!("{} {}{}", request.method(), header("host").unwrap(), request.uri()),
        "site": header("sec-fetch-site"),
        "mode": header("sec-fetch-mode"),
        "dest": header("sec-fetch-dest"),
        "user": header("sec-fetch-user"),
        "origin": header("origin"),
        "cookie": header("cookie"),
        "type": header("content-type"),
        "body": request.body(),
    });
    response.body(seen.to_string()).unwrap()
}

fn seen(page: &Page) -> Value {
    serde_json::from_str(&page.text()).unwrap()
}

const HOME: &str = "https://app.example.test";
const APP: &str = "https://app.example.test/me";

#[tokio::test]
async fn requests_say_where_they_come_from() {
    for (page, site) in [
        ("https://app.example.test/x", "same-origin"),
        ("https://app.example.test:8443/", "same-site"),
        ("https://example.test/", "same-site"),
        ("https://b.a.example.test/", "same-site"),
        ("https://evil.test/", "cross-site"),
        ("https://notexample.test/", "cross-site"),
        ("http://app.example.test/", "cross-site"),
    ] {
        let origin = page.strip_suffix(['x', '/']).unwrap().trim_end_matches('/');
        let is_cross_origin = site != "same-origin";
        let mut browser = echo();
        browser.show(page);
        for (method, expected_origin) in
            [(Method::GET, is_cross_origin.then_some(origin)), (Method::POST, Some(origin))]
        {
            let fetched = seen(&browser.fetch(method.clone(), APP, None).await);
            assert_eq!(
                (&fetched["site"], &fetched["mode"], &fetched["dest"]),
                (&json!(site), &json!("cors"), &json!("empty"))
            );
            assert_eq!(
                (fetched["origin"].as_str(), fetched["user"].as_str()),
                (expected_origin, None),
                "{method}, {page}"
            );
        }
        let navigation = json!(["navigate", "document", "?1"]);
        let clicked = seen(&browser.click(APP).await);
        assert_eq!(json!([clicked["mode"], clicked["dest"], clicked["user"]]), navigation);
        assert_eq!((clicked["site"].as_str(), clicked["origin"].as_str()), (Some(site), None), "a link on {page}");
        browser.show(page);
        let submitted = seen(&browser.submit(APP, "a=1&b=2").await);
        assert_eq!(
            (submitted["site"].as_str(), submitted["origin"].as_str()),
            (Some(site), Some(origin)),
            "a form on {page}"
        );
        assert_eq!((&submitted["line"], &submitted["body"]), (&json!("POST app.example.test/me"), &json!("a=1&b=2")));
        assert_eq!(submitted["type"], "application/x-www-form-urlencoded");
        browser.show(page);
        let typed = seen(&browser.open(APP).await);
        assert_eq!((typed["site"].as_str(), typed["origin"].as_str()), (Some("none"), None), "typed after {page}");
    }
}

#[tokio::test]
async fn fetch_metadata_is_sent_to_secure_urls_only() {
    for (url, is_sent) in [
        ("https://a.test/", true),
        ("http://a.test/", false),
        ("http://localhost:3000/", true),
        ("http://a.localhost/", true),
        ("http://127.0.0.1/", true),
        ("http://[::1]:80/", true),
        ("http://10.0.0.1/", false),
    ] {
        let mut browser = echo();
        let headers = seen(&browser.open(url).await);
        assert!(
            ["site", "mode", "dest", "user"].iter().all(|name| headers[name].is_string() == is_sent),
            "{url}: {headers}"
        );
    }
}

#[tokio::test]
async fn same_site_decides_which_cookies_are_sent_and_kept() {
    for (page, links, posts) in [
        ("https://app.example.test/", "strict lax default none", "strict lax default none"),
        ("https://sibling.example.test/", "strict lax default none", "strict lax default none"),
        ("https://evil.test/", "lax default none", "none"),
        ("http://app.example.test/", "lax default none", "none"),
    ] {
        let mut browser = echo();
        for cookie in ["strict=1; SameSite=Strict", "lax=1; SameSite=Lax", "default=1", "none=1; SameSite=None; Secure"]
        {
            browser.set_cookie(&format!("{cookie}; Domain=example.test; Path=/"));
        }
        browser.show(page);
        let names = |answer: &Value| answer["cookie"].as_str().unwrap_or_default().replace("=1", "").replace(';', "");
        for method in [Method::GET, Method::POST] {
            assert_eq!(names(&seen(&browser.fetch(method, APP, None).await)), posts, "fetched from {page}");
        }
        assert_eq!(names(&seen(&browser.click(APP).await)), links, "a link on {page}");
        browser.show(page);
        assert_eq!(names(&seen(&browser.submit(APP, "").await)), posts, "a form on {page}");
        browser.show(page);
        assert_eq!(names(&seen(&browser.open(APP).await)), "strict lax default none", "typed after {page}");

        // Navigations from other sites may set any cookie, but what they embed and fetch may not.
        for cookie in ["fetched%3D1", "unrestricted%3D1;SameSite%3DNone;Secure"] {
            browser.show(page);
            browser.fetch(Method::GET, &format!("{APP}?set={cookie}"), None).await;
        }
        browser.show(page);
        browser.click(&format!("{APP}?set=clicked%3D1;SameSite%3DStrict")).await;
        let kept = browser.cookies();
        assert_eq!(kept.contains("fetched=1"), posts == links, "{page}: {kept}");
        assert!(kept.contains("unrestricted=1") && kept.contains("clicked=1"), "{page}: {kept}");
    }
}

#[tokio::test]
async fn redirects_are_followed_and_change_the_method_as_browsers_do() {
    for (status, post) in [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")] {
        let mut browser = echo();
        let page = browser.submit(&format!("/form?to={status}:/there?set=a%253D1"), "a=b").await;
        let answer = seen(&page);
        assert_eq!(page.path(), "/there?set=a%3D1");
        assert_eq!(answer["line"], format!("{post} app.example.test/there?set=a%3D1"));
        let has_body = post == "POST";
        assert_eq!((answer["body"] == "a=b", answer["type"].is_string()), (has_body, has_body), "{status}");
        assert_eq!(browser.cookies(), "a=1");
    }
}

#[tokio::test]
async fn a_redirect_keeps_the_initiator_and_remembers_other_sites() {
    let mut browser = echo();
    browser.set_cookie("a=1; SameSite=Strict; Path=/");
    browser.show("https://evil.test/");
    let answer = seen(&browser.click("https://evil.test/?to=302:https://app.example.test/me").await);
    assert_eq!((answer["site"].as_str(), answer["cookie"].as_str()), (Some("cross-site"), None));
    let answer = seen(&browser.click("https://evil.test/?to=302:https://app.example.test/me").await);
    assert_eq!(answer["site"], "cross-site", "from the page itself, through another site");
    let answer = seen(&browser.open("https://evil.test/?to=302:https://app.example.test/me").await);
    assert_eq!((answer["site"].as_str(), answer["cookie"].as_str()), (Some("none"), Some("a=1")));
}

#[tokio::test]
#[should_panic(expected = "more than 20 redirects")]
async fn a_redirect_loop_panics() {
    let again = service_fn(async |_: Request<String>| {
        let response = http::Response::builder().status(303).header("location", "/again");
        Ok::<_, Infallible>(response.body(String::new()).unwrap())
    });
    Browser::new(again, HOME).open("/").await;
}

#[tokio::test]
async fn tabs_share_cookies_and_a_restart_ends_those_without_a_date() {
    let first = echo();
    let mut second = first.clone();
    second.open("https://other.test/").await;
    first.set_cookie("a=1; HttpOnly");
    first.set_cookie("b=2; Max-Age=60");
    assert_eq!(first.cookies(), "a=1; b=2");
    assert_eq!(first.document_cookie(), "b=2");
    second.show(HOME);
    assert_eq!(second.cookies(), "a=1; b=2");
    second.restart();
    assert_eq!(first.cookies(), "b=2");
}

#[test]
fn cookies_are_stored_and_sent_by_the_rules() {
    struct Row<'a> {
        name: &'static str,
        from: &'static str,
        set: &'a [&'a str],
        to: &'static str,
        sent: &'static str,
    }
    const HERE: &str = "https://app.example.test/a/b";
    let long = format!("a={}", "x".repeat(4096));
    for Row { name, from, set, to, sent } in [
        Row { name: "host-only", from: HERE, set: &["a=1"], to: "https://app.example.test/a/c", sent: "a=1" },
        Row { name: "host-only, below", from: HERE, set: &["a=1"], to: "https://x.app.example.test/a/", sent: "" },
        Row { name: "host-only, the parent", from: HERE, set: &["a=1"], to: "https://example.test/a/", sent: "" },
        Row {
            name: "a domain",
            from: HERE,
            set: &["a=1; Domain=.EXAMPLE.test; Path=/"],
            to: "https://b.example.test/",
            sent: "a=1",
        },
        Row {
            name: "a domain, another one",
            from: HERE,
            set: &["a=1; Domain=example.test; Path=/"],
            to: "https://notexample.test/",
            sent: "",
        },
        Row { name: "a sibling's domain", from: HERE, set: &["a=1; Domain=b.example.test"], to: HERE, sent: "" },
        Row { name: "a domain below", from: HERE, set: &["a=1; Domain=x.app.example.test"], to: HERE, sent: "" },
        Row { name: "a public suffix", from: HERE, set: &["a=1; Domain=test"], to: HERE, sent: "" },
        Row {
            name: "a public suffix, itself",
            from: "https://localhost/",
            set: &["a=1; Domain=localhost"],
            to: "https://x.localhost/",
            sent: "",
        },
        Row {
            name: "a public suffix, at its host",
            from: "https://localhost/",
            set: &["a=1; Domain=localhost"],
            to: "https://localhost/",
            sent: "a=1",
        },
        Row {
            name: "an address",
            from: "https://127.0.0.1/",
            set: &["a=1; Domain=127.0.0.1"],
            to: "https://127.0.0.1:3000/",
            sent: "a=1",
        },
        Row {
            name: "the end of an address",
            from: "https://127.0.0.1/",
            set: &["a=1; Domain=0.0.1"],
            to: "https://127.0.0.1/",
            sent: "",
        },
        Row {
            name: "host-only beside the domain",
            from: HERE,
            set: &["a=1", "a=2; Domain=app.example.test"],
            to: HERE,
            sent: "a=1; a=2",
        },
        Row { name: "another port", from: HERE, set: &["a=1"], to: "https://app.example.test:8443/a/", sent: "a=1" },
        Row { name: "the default path", from: HERE, set: &["a=1"], to: "https://app.example.test/ab", sent: "" },
        Row { name: "a relative path", from: HERE, set: &["a=1; Path=x"], to: HERE, sent: "a=1" },
        Row { name: "another path", from: HERE, set: &["a=1; Path=/a/b/c"], to: HERE, sent: "" },
        Row {
            name: "the longest path first",
            from: HERE,
            set: &["c=1; Path=/", "a=2", "b=3; Path=/a/b"],
            to: HERE,
            sent: "b=3; a=2; c=1",
        },
        Row { name: "a replacement", from: HERE, set: &["a=1", "b=1", "a=2"], to: HERE, sent: "a=2; b=1" },
        Row {
            name: "a past date",
            from: HERE,
            set: &["a=1", "a=; Expires=Thu, 01 Jan 1970 00:00:00 GMT"],
            to: HERE,
            sent: "",
        },
        Row {
            name: "a past date, another path",
            from: HERE,
            set: &["a=1", "a=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT"],
            to: HERE,
            sent: "a=1",
        },
        Row {
            name: "an age and a past date",
            from: HERE,
            set: &["a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=9"],
            to: HERE,
            sent: "a=1",
        },
        Row { name: "an age of zero", from: HERE, set: &["a=1", "a=1; Max-Age=0"], to: HERE, sent: "" },
        Row { name: "an endless age", from: HERE, set: &["a=1; Max-Age=99999999999999"], to: HERE, sent: "a=1" },
        Row { name: "secure", from: HERE, set: &["a=1; Secure"], to: HERE, sent: "a=1" },
        Row {
            name: "secure, to an insecure page",
            from: HERE,
            set: &["a=1; Secure; Path=/"],
            to: "http://app.example.test/",
            sent: "",
        },
        Row {
            name: "secure, from an insecure page",
            from: "http://app.example.test/",
            set: &["a=1; Secure"],
            to: HERE,
            sent: "",
        },
        Row { name: "SameSite=None without Secure", from: HERE, set: &["a=1; SameSite=None"], to: HERE, sent: "" },
        Row { name: "__Secure- without Secure", from: HERE, set: &["__secure-a=1"], to: HERE, sent: "" },
        Row { name: "__Host-", from: HERE, set: &["__Host-a=1; Secure; Path=/"], to: HERE, sent: "__Host-a=1" },
        Row { name: "__Host- without a path", from: HERE, set: &["__Host-a=1; Secure"], to: HERE, sent: "" },
        Row {
            name: "__Host- with a domain",
            from: HERE,
            set: &["__HOST-a=1; Secure; Path=/; Domain=app.example.test"],
            to: HERE,
            sent: "",
        },
        Row { name: "__Http- without HttpOnly", from: HERE, set: &["__Http-a=1; Secure"], to: HERE, sent: "" },
        Row { name: "too long", from: HERE, set: &[&*long], to: HERE, sent: "" },
        Row { name: "no cookie", from: HERE, set: &["", "=", "a", "; Path=/"], to: HERE, sent: "" },
    ] {
        let mut browser = echo();
        browser.show(from);
        set.iter().for_each(|cookie| browser.set_cookie(cookie));
        browser.show(to);
        assert_eq!(browser.cookies(), sent, "{name}");
    }
}

#[test]
fn an_insecure_page_does_not_replace_a_secure_cookie() {
    let mut browser = echo();
    browser.set_cookie("a=1; Secure; Path=/me");
    for (page, field) in [
        ("http://app.example.test/", "a=2; Path=/me"),
        ("http://b.example.test/", "a=2; Domain=example.test; Path=/me/orders"),
    ] {
        browser.show(page);
        browser.set_cookie(field);
        browser.show("https://app.example.test/me/orders/1");
        assert_eq!(browser.cookies(), "a=1", "{field}");
    }
    browser.show("http://app.example.test/");
    browser.set_cookie("a=2; Path=/");
    browser.show(APP);
    assert_eq!(browser.cookies(), "a=1; a=2", "a shorter path does not hide it");
}

#[tokio::test]
async fn a_redirect_elsewhere_and_one_of_a_script_are_not_followed() {
    let mut browser = echo();
    assert_eq!(browser.open("/?to=303:https://other.test/").await.status(), 303);
    assert_eq!(browser.fetch(Method::GET, "/?to=303:/there", None).await.status(), 303);
}

#[tokio::test]
async fn a_browser_connects_to_a_server_signs_in_and_comes_back() {
    let mock = MockCrossmint::start().await;
    let layer = CrossmintAuthLayer::new(mock.config().cookies(CookieOptions::hardened()).build().unwrap());
    let app = axum::Router::new().route("/", axum::routing::get(|| async { "in" })).layer(layer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut browser = Browser::connect(listener.local_addr().unwrap(), HOME);
    let server = tokio::spawn(async { axum::serve(listener, app).await });
    browser.sign_in(&mock, "alice").await;
    assert_eq!(browser.open("/").await.text(), "in");
    assert!(browser.cookie("crossmint-refresh-token-mock-project").is_some_and(|token| mock.is_live(&token)));
    assert!(browser.document_cookie().starts_with("crossmint-jwt-mock-project=e"));
    assert!(!browser.document_cookie().contains("refresh-token"), "it is HttpOnly");
    browser.restart();
    let fetch = || browser.fetch(Method::GET, "/", None);
    let (one, two) = tokio::join!(fetch(), fetch());
    assert_eq!((one.status(), two.status(), mock.calls(Endpoint::Refresh)), (200, 200, 2), "a login and a refresh");
    server.abort();
}
