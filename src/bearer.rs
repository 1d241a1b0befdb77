//! The JWT in an `Authorization` header (RFC 6750).

use http::{HeaderMap, header::AUTHORIZATION};

use crate::error::AuthErrorKind;

/// Finds the token of the scheme `Bearer`. Returns `None` if the request uses no such scheme.
///
/// # Errors
///
/// When the field is repeated or malformed (RFC 6750 section 2.1): which token counts would be ambiguous.
pub(crate) fn bearer_token(headers: &HeaderMap) -> Option<Result<&str, AuthErrorKind>> {
    let fields = headers.get_all(AUTHORIZATION);
    let token = fields.iter().find_map(|field| after_scheme(field.as_bytes()))?;
    let is_only = fields.iter().nth(1).is_none();
    let token = std::str::from_utf8(token).ok().filter(|token| is_only && is_token(token));
    Some(token.ok_or(AuthErrorKind::InvalidAuthorization))
}

/// Returns what follows the scheme, which is compared without regard to case (RFC 9110 section 11.1).
fn after_scheme(field: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = field.split_at_checked(SCHEME.len())?;
    let ends = rest.first().is_none_or(|byte| byte.is_ascii_whitespace());
    (scheme.eq_ignore_ascii_case(SCHEME) && ends).then(|| rest.trim_ascii())
}

/// Returns whether all bytes can be in a `b64token` (RFC 6750 section 2.1). The JWT's grammar is stricter.
fn is_token(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte))
}

const SCHEME: &[u8] = b"Bearer";

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_is_the_only_one_of_its_scheme() {
        const INVALID: Option<Result<&str, AuthErrorKind>> = Some(Err(AuthErrorKind::InvalidAuthorization));
        let cases = [
            ("a token", &["Bearer a.b-c_d"][..], Some(Ok("a.b-c_d"))),
            ("lower case", &["bearer a"], Some(Ok("a"))),
            ("spaces", &["Bearer   a "], Some(Ok("a"))),
            ("nothing", &[], None),
            ("another scheme", &["Basic YTpi"], None),
            ("a longer scheme", &["Bearers a"], None),
            ("an empty field", &[""], None),
            ("no token", &["Bearer"], INVALID),
            ("spaces for a token", &["Bearer  "], INVALID),
            ("two tokens", &["Bearer a b"], INVALID),
            ("a list", &["Bearer a,Bearer a"], INVALID),
            ("parameters", &["Bearer token=\"a\""], INVALID),
            ("two fields", &["Bearer a", "Bearer a"], INVALID),
            ("another scheme first", &["Basic YTpi", "Bearer a"], INVALID),
            ("another scheme behind", &["Bearer a", "Basic YTpi"], INVALID),
            ("not ASCII", &["Bearer \u{e9}"], INVALID),
        ];
        for (name, fields, expected) in cases {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(AUTHORIZATION, HeaderValue::from_bytes(field.as_bytes()).unwrap());
            }
            assert_eq!(bearer_token(&headers), expected, "{name}");
        }
    }
}
