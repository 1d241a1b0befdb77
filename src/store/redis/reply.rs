//! What the server's replies mean. The server is not trusted: anything unexpected is an error.

use std::{mem, time::Duration};

use redis::Value;

use crate::{
    session::RevokedJwt,
    store::{
        interface::Unreachable,
        record::{Chain, Claimed, Finished, LOG_PAGE, LogPosition, MAX_ANSWERS, Previous, Sealed, Tail},
    },
};

pub(super) fn chain(reply: Value) -> Result<Chain, Unreachable> {
    read_chain(array(reply)).ok_or_else(malformed)
}

pub(super) fn claimed(reply: Value) -> Result<Claimed, Unreachable> {
    let reply = array(reply);
    match reply.as_deref() {
        Some([word, Value::Int(number)]) if is(word, "granted") => Ok(Claimed::Granted { is_takeover: *number > 1 }),
        _ => read_chain(reply).map(Claimed::Denied).ok_or_else(malformed),
    }
}

pub(super) fn finished(reply: Value) -> Result<Finished, Unreachable> {
    let mut reply = array(reply);
    match reply.as_deref_mut() {
        Some([word]) if is(word, "recorded") => Ok(Finished::Recorded),
        Some([word, tombstone]) if is(word, "void") => {
            sealed(mem::replace(tombstone, Value::Nil)).map(Finished::Ended).ok_or_else(malformed)
        }
        _ => read_chain(reply).map(Finished::Superseded).ok_or_else(malformed),
    }
}

pub(super) fn previous(reply: Value) -> Result<Previous, Unreachable> {
    let mut reply = array(reply).unwrap_or_default();
    match (reply.pop(), reply.pop(), reply.pop()) {
        (Some(word), None, None) if is(&word, "nothing") => Ok(Previous::Nothing),
        (Some(word), None, None) if is(&word, "stalled") => Ok(Previous::Stalled),
        (Some(proof), Some(word), None) if is(&word, "claimed") => {
            sealed(proof).map(Previous::Claimed).ok_or_else(malformed)
        }
        (Some(answer), Some(word), None) if is(&word, "rotated") => {
            sealed(answer).map(Previous::Rotated).ok_or_else(malformed)
        }
        _ => Err(malformed()),
    }
}

pub(super) fn recorded(reply: Value) -> Result<(), Unreachable> {
    match array(reply).as_deref() {
        Some([word]) if is(word, "recorded") => Ok(()),
        _ => Err(malformed()),
    }
}

pub(super) fn log_page(reply: Value) -> Result<Vec<(LogPosition, Option<RevokedJwt>)>, Unreachable> {
    let entries = array(reply).filter(|entries| entries.len() <= LOG_PAGE).ok_or_else(malformed)?;
    entries.into_iter().map(log_entry).collect::<Option<_>>().ok_or_else(malformed)
}

/// Returns the smallest ID of an entry behind this position. (Exclusive ranges are newer than Redis 5.)
pub(super) fn behind(position: &LogPosition) -> Result<String, Unreachable> {
    let (time, number) = parse_id(&position.0).ok_or_else(malformed)?;
    Ok(number
        .checked_add(1)
        .map_or_else(|| format!("{}-0", time.saturating_add(1)), |number| format!("{time}-{number}")))
}

fn parse_id(id: &str) -> Option<(u64, u64)> {
    let (time, number) = id.split_once('-')?;
    Some((time.parse().ok()?, number.parse().ok()?))
}

/// An entry that is not made like ours must not hide those behind it.
fn log_entry(entry: Value) -> Option<(LogPosition, Option<RevokedJwt>)> {
    let [id, fields] = array(entry)?.try_into().ok()?;
    let id = String::from_utf8(bytes(id)?).ok()?;
    parse_id(&id)?;
    Some((LogPosition(id), revoked_jwt(fields)))
}

fn revoked_jwt(fields: Value) -> Option<RevokedJwt> {
    let [_, digest, _, expires_at] = array(fields)?.try_into().ok()?;
    let expires_at = String::from_utf8(bytes(expires_at)?).ok()?.parse().ok()?;
    Some(RevokedJwt { digest: bytes(digest)?.try_into().ok()?, expires_at })
}

fn read_chain(reply: Option<Vec<Value>>) -> Option<Chain> {
    let [word, value, life, answers] = reply?.try_into().ok()?;
    let (value, life) = (sealed(value)?, milliseconds(&life)?);
    let answers = array(answers).filter(|answers| answers.len() <= MAX_ANSWERS)?;
    let answers = answers.into_iter().map(sealed).collect::<Option<Vec<_>>>()?;
    let tail = match bytes(word)?.as_slice() {
        b"absent" => Tail::Absent,
        b"claimed" => Tail::Claimed { proof: value, lease: life },
        b"stalled" => Tail::Stalled,
        b"lost" => Tail::Lost(value),
        b"rotated" => Tail::Rotated,
        b"failed" => Tail::Failed(value, life),
        b"refused" => Tail::Refused(value),
        b"ended" => Tail::Ended(value),
        _ => return None,
    };
    Some(Chain { answers, tail })
}

fn array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

fn sealed(value: Value) -> Option<Sealed> {
    bytes(value).filter(|bytes| bytes.len() <= MAX_SEALED)
}

fn milliseconds(value: &Value) -> Option<Duration> {
    match value {
        Value::Int(milliseconds) => Some(Duration::from_millis(u64::try_from(*milliseconds).ok()?)),
        _ => None,
    }
}

fn is(value: &Value, word: &str) -> bool {
    matches!(value, Value::BulkString(bytes) if bytes == word.as_bytes())
}

fn malformed() -> Unreachable {
    Unreachable("the store's reply is not one of this version".into())
}

/// Far more than an answer of Crossmint's.
const MAX_SEALED: usize = 128 * 1024;
