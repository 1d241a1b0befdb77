//! The requests of a browser.

use bytes::Bytes;
use http::HeaderValue;

/// Writes the head of a navigation by Chrome: its header fields, and foreign cookies around those of the session.
pub(crate) fn head(session: &HeaderValue) -> Bytes {
    let session = session.as_bytes();
    [FIELDS, BEFORE, session, AFTER, b"\r\n\r\n"].concat().into()
}

const FIELDS: &[u8] = b"GET / HTTP/1.1\r\n\
Host: localhost:3000\r\n\
Connection: keep-alive\r\n\
sec-ch-ua: \"Google Chrome\";v=\"143\", \"Chromium\";v=\"143\", \"Not A(Brand\";v=\"24\"\r\n\
sec-ch-ua-mobile: ?0\r\n\
sec-ch-ua-platform: \"Linux\"\r\n\
Upgrade-Insecure-Requests: 1\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\n\
Sec-Fetch-Site: same-origin\r\n\
Sec-Fetch-Mode: navigate\r\n\
Sec-Fetch-User: ?1\r\n\
Sec-Fetch-Dest: document\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Accept-Language: en-GB,en;q=0.9\r\n\
Cookie: ";
const BEFORE: &[u8] = b"_ga=GA1.1.1374625178.1760000000; csrftoken=dW5ndWVzc2FibGU; theme=dark; ";
const AFTER: &[u8] = b"; consent=necessary; _ga_4KQ2ZJ7XWP=GS2.1.s1760000000$o4$g1$t1760000600$j60$l0$h0";
