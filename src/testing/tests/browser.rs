use http::{HeaderMap, Request, Response, header::SET_COOKIE};
use http_body_util::Empty;
use tower::service_fn;

use super::super::{Browser, Page};

/// Answers with the request's header fields; a path `/set?<field>` sets a cookie, and `/to?<target>` redirects.
async fn echo<B>(request: Request<B>) -> Result<Response<Empty<bytes::Bytes>>, std::convert::Infallible> {
    let mut response = Response::new(Empty::new());
    let query = request.uri().query().unwrap_or_default().replace('+', " ");
    match request.uri().path() {
        "/set" | "/deep/set" => drop(response.headers_mut().insert(SET_COOKIE, query.parse().unwrap())),
        "/to" => {
            *response.status_mut() = http::StatusCode::SEE_OTHER;
            response.headers_mut().insert("location", query.parse().unwrap());
        }
        _ => *response.headers_mut() = request.headers().clone(),
    }
    response.headers_mut().insert("method", request.method().as_str().parse().unwrap());
    Ok(response)
}

fn field<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

fn cookie(page: &Page) -> &str {
    field(page.headers(), "cookie")
}

#[tokio::test]
async fn cookies_come_along_as_their_attributes_say() {
    for (attributes, own, link, form, plain) in [
        ("", true, true, false, true),
        (";+SameSite=Lax", true, true, false, true),
        (";+SameSite=Strict", true, false, false, true),
        (";+SameSite=None;+Secure", true, true, true, false),
        (";+SameSite=None", false, false, false, false),
        (";+Secure", true, true, false, false),
        (";+Domain=example.com", true, true, false, true),
        (";+Domain=other.com", false, false, false, false),
        (";+Path=/deep", false, false, false, false),
        (";+Max-Age=0", false, false, false, false),
    ] {
        let sent = |is_sent| if is_sent { "a=b" } else { "" };
        let mut browser = Browser::new(service_fn(echo), "https://app.example.com");
        browser.open(&format!("/set?a=b{attributes}")).await;
        assert_eq!(cookie(&browser.open("/").await), sent(own), "{attributes}: typed");
        assert_eq!(cookie(&browser.click("/x").await), sent(own), "{attributes}: clicked");
        assert_eq!(cookie(&browser.follow_link_from("https://www.example.com", "/").await), sent(own), "{attributes}");
        assert_eq!(cookie(&browser.follow_link_from("https://evil.example", "/").await), sent(link), "{attributes}");
        assert_eq!(cookie(&browser.submit_from("https://evil.example", "/", "").await), sent(form), "{attributes}");
        let mut browser = Browser::new(service_fn(echo), "http://app.example.com");
        browser.open(&format!("/set?a=b{attributes}")).await;
        assert_eq!(cookie(&browser.open("/").await), sent(plain), "{attributes}: plain HTTP");
    }
}

#[tokio::test]
async fn prefixed_names_are_held_to_their_promises() {
    for (field, is_kept) in [
        ("__Host-a=b;+Secure;+Path=/", true),
        ("__Host-a=b;+Path=/", false),
        ("__Host-a=b;+Secure", false),
        ("__Host-a=b;+Secure;+Path=/;+Domain=app.example.com", false),
        ("__Secure-a=b;+Secure", true),
        ("__Secure-a=b", false),
    ] {
        let mut browser = Browser::new(service_fn(echo), "https://app.example.com");
        browser.open(&format!("/set?{field}")).await;
        assert_eq!(cookie(&browser.open("/").await).is_empty(), !is_kept, "{field}");
    }
}

#[tokio::test]
async fn a_cookie_is_replaced_or_deleted_by_one_of_its_name_domain_and_path() {
    let mut browser = Browser::new(service_fn(echo), "https://app.example.com");
    for (field, expected) in [
        ("a=1", "a=1"),
        ("a=2", "a=2"),
        ("a=3;+Domain=example.com", "a=2; a=3"),
        ("a=;+Expires=Thu,+01+Jan+1970+00:00:00+GMT", "a=3"),
        ("a=;+Max-Age=-1;+Domain=example.com", ""),
    ] {
        browser.open(&format!("/set?{field}")).await;
        assert_eq!(cookie(&browser.open("/").await), expected, "{field}");
    }
    browser.open("/deep/set?b=1").await;
    assert_eq!([cookie(&browser.open("/").await), cookie(&browser.open("/deep/x").await)], ["", "b=1"]);
    assert_eq!((browser.cookie("b"), browser.cookie("a")), (None, None));
}

#[tokio::test]
async fn requests_say_where_they_come_from() {
    let mut browser = Browser::new(service_fn(echo), "https://app.example.com:8443");
    let pages = [
        ("typed", browser.open("/").await, ["none", "navigate", ""]),
        ("clicked", browser.click("/").await, ["same-origin", "navigate", ""]),
        (
            "fetched",
            browser.fetch(http::Method::PUT, "/", None).await,
            ["same-origin", "cors", "https://app.example.com:8443"],
        ),
        ("a sibling", browser.follow_link_from("https://b.example.com", "/").await, ["same-site", "navigate", ""]),
        (
            "elsewhere",
            browser.submit_from("https://c.test", "/", "").await,
            ["cross-site", "navigate", "https://c.test"],
        ),
    ];
    for (name, page, expected) in pages {
        let fields = ["sec-fetch-site", "sec-fetch-mode", "origin"].map(|name| field(page.headers(), name));
        assert_eq!(fields, expected, "{name}");
        assert_eq!(field(page.headers(), "host"), "app.example.com:8443");
    }
    let mut plain = Browser::new(service_fn(echo), "http://app.example.com");
    assert_eq!(field(plain.open("/").await.headers(), "sec-fetch-site"), "", "not over plain HTTP");
}

#[tokio::test]
async fn navigations_follow_redirects_within_the_application() {
    let mut browser = Browser::new(service_fn(echo), "https://app.example.com");
    let page = browser.submit("/to?/a?b=c", "x=y").await;
    assert_eq!((page.path(), page.status(), field(page.headers(), "method")), ("/a?b=c", 200, "GET"));
    assert_eq!(browser.open("/to?https://other.example/").await.status(), 303);
    assert_eq!(browser.fetch(http::Method::GET, "/to?/a", None).await.status(), 303);
}
