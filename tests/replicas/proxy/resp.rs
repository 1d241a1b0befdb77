//! As much of the protocol (RESP2 and RESP3) as it takes to tell commands and replies apart.

/// Returns the length of the value at the start of a buffer, once the whole value is there.
pub(super) fn length(buffer: &[u8]) -> Option<usize> {
    let end = buffer.windows(2).position(|two| two == b"\r\n")? + 2;
    let number = || std::str::from_utf8(&buffer[1..end - 2]).ok()?.parse::<i64>().ok();
    let values = match buffer[0] {
        b'$' | b'=' | b'!' => {
            // A null has the length -1, and nothing behind it.
            let whole = number()?.try_into().map_or(end, |length: usize| end + length + 2);
            return (buffer.len() >= whole).then_some(whole);
        }
        b'*' | b'~' | b'>' => number()?,
        b'%' => 2 * number()?,
        b'|' => 2 * number()? + 1,
        _ => 0,
    };
    (0..values).try_fold(end, |start, _| Some(start + length(&buffer[start..])?))
}

/// Returns the first key of a command that runs a script.
pub(super) fn key_of_script(command: &[u8]) -> Option<&[u8]> {
    let words = words(command);
    let [name, _, _, key, ..] = &*words else { return None };
    [b"EVALSHA".as_slice(), b"EVAL"].iter().any(|script| name.eq_ignore_ascii_case(script)).then_some(key)
}

/// Returns whether a command is answered other than by a push.
pub(super) fn has_reply(command: &[u8]) -> bool {
    words(command).first().is_none_or(|name| !name.to_ascii_uppercase().ends_with(b"SUBSCRIBE"))
}

/// Returns whether a value from the server is not the reply to a command: a push, or a message of RESP2.
pub(super) fn is_push(value: &[u8]) -> bool {
    let kinds = [b"message".as_slice(), b"subscribe", b"unsubscribe"];
    value[0] == b'>' || (value[0] == b'*' && words(value).first().is_some_and(|kind| kinds.contains(kind)))
}

/// Returns the strings of an array of strings.
fn words(array: &[u8]) -> Vec<&[u8]> {
    let (mut words, mut rest) = (Vec::new(), skip_line(array));
    while rest.first() == Some(&b'$')
        && let Some(length) = length(rest)
    {
        let (word, others) = rest.split_at(length);
        words.push(skip_line(word).strip_suffix(b"\r\n").unwrap_or_default());
        rest = others;
    }
    words
}

fn skip_line(text: &[u8]) -> &[u8] {
    let end = text.windows(2).position(|two| two == b"\r\n").map_or(text.len(), |end| end + 2);
    &text[end..]
}
