//! Which requests to the two routes come from another site.
//!
//! `Sec-Fetch-Site` decides where it is present: browsers write it, scripts cannot. Else `Origin` is compared with the
//! host. A request with neither comes from no browser page, or from one so old that `SameSite` has to do.

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{HOST, ORIGIN},
};

/// Tells whether a request may change the session.
pub(crate) fn is_allowed(uri: &Uri, headers: &HeaderMap, trusted: &[String]) -> bool {
    let origin = match single(headers, &ORIGIN) {
        Ok(origin) => origin,
        Err(Repeated) => return false,
    };
    if origin.is_some_and(|origin| trusted.iter().any(|trusted| origin == trusted.as_str())) {
        return true;
    }
    match (single(headers, &SEC_FETCH_SITE), origin) {
        (Err(Repeated), _) => false,
        (Ok(Some(site)), _) => site == "same-origin" || site == "none",
        (Ok(None), Some(origin)) => is_own(origin, uri, headers),
        (Ok(None), None) => true,
    }
}

/// Compares an `Origin` with the host that the request was sent to. The scheme is not known behind a proxy that ends
/// TLS, so a default port may be written or not.
fn is_own(origin: &HeaderValue, uri: &Uri, headers: &HeaderMap) -> bool {
    let Some((scheme, authority)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else {
        return false;
    };
    let host = match single(headers, &HOST) {
        Ok(Some(host)) => host.to_str().ok(),
        Ok(None) => uri.authority().map(|authority| authority.as_str()),
        Err(Repeated) => None,
    };
    let Some(host) = host else { return false };
    let default_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return false,
    };
    let bare = |authority: &str| authority.strip_suffix(default_port).unwrap_or(authority).to_ascii_lowercase();
    bare(authority) == bare(host)
}

struct Repeated;

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Repeated> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { Err(Repeated) } else { Ok(first) }
}

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
