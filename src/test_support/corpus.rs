//! The case data in `tests/corpora`.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

/// Reads a file.
pub(crate) fn document(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora").join(file);
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Returns the cases of a file except those with the IDs `left_out`, and asserts that they are `count` cases.
pub(crate) fn cases(file: &str, count: usize, left_out: &[&str]) -> Vec<Value> {
    let mut document = document(file);
    let all: Vec<Value> = serde_json::from_value(document["cases"].take()).unwrap();
    let (left, cases): (Vec<_>, Vec<_>) = all.into_iter().partition(|case| left_out.contains(&text(case, "id")));
    assert_eq!((cases.len(), left.len()), (count, left_out.len()), "{file}: cases, and cases that are left out");
    cases
}

/// Returns a member that must be a string.
#[track_caller]
pub(crate) fn text<'a>(case: &'a Value, member: &str) -> &'a str {
    case[member].as_str().unwrap_or_else(|| panic!("`{member}` is no string in {case}"))
}

/// Decodes a member in base64.
#[track_caller]
pub(crate) fn bytes(case: &Value, member: &str) -> Vec<u8> {
    STANDARD.decode(text(case, member)).unwrap()
}
