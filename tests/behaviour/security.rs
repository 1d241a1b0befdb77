//! The tables of threats in `SECURITY.md`.

use std::{collections::BTreeSet, fs, path::Path};

#[test]
fn every_threat_has_its_evidence_or_a_reason() {
    let security = include_str!("../../SECURITY.md");
    let rows = security.lines().filter_map(|line| {
        let [_, id, _threat, evidence, _] = line.split('|').map(str::trim).collect::<Vec<_>>().try_into().ok()?;
        Some((id.get(..1)?, id.get(1..)?.parse::<usize>().ok()?, evidence))
    });
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // A published crate lacks the packages in `tests`, and so some of the tests.
    let tests = (!root.join("Cargo.toml.orig").exists()).then(|| tests(root));
    let mut found = BTreeSet::new();
    for (letter, number, evidence) in rows {
        assert!(found.insert((letter, number)), "{letter}{number} comes twice");
        let mut names = evidence.split('`').skip(1).step_by(2).peekable();
        assert!(names.peek().is_some() || evidence.len() > 40, "{letter}{number}: neither a test nor a reason");
        for name in names.filter(|name| is_name(name)) {
            let exists = tests.as_ref().is_none_or(|tests| tests.contains(name));
            assert!(exists, "{letter}{number}: there is no test {name}");
        }
    }
    let expected = TABLES.into_iter().flat_map(|(letter, count)| (1..=count).map(move |number| (letter, number)));
    assert_eq!(found, expected.collect());
}

/// Returns the names of all functions in the project's own Rust files that are marked as tests.
fn tests(root: &Path) -> BTreeSet<String> {
    let mut folders = vec![root.join("src"), root.join("tests"), root.join("examples"), root.join("fuzz")];
    let mut tests = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                tests.extend(marked(&fs::read_to_string(path).unwrap()));
            } else if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            }
        }
    }
    tests
}

/// Finds the functions under `#[test]` or `#[tokio::test]`, which may stand among other attributes.
fn marked(source: &str) -> BTreeSet<String> {
    let (mut tests, mut is_test) = (BTreeSet::new(), false);
    for line in source.lines().map(str::trim) {
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(function) = function.filter(|_| is_test) {
            tests.extend(function.split(['(', '<']).next().map(ToOwned::to_owned));
            is_test = false;
        }
    }
    // A macro makes a test of each name that it is given, one per line.
    if tests.remove("$name") {
        tests.extend(source.lines().map(str::trim).filter(|line| is_name(line)).map(ToOwned::to_owned));
    }
    tests
}

/// Tells whether a text can be the name of a test. Paths, types and commands have other characters.
fn is_name(text: &str) -> bool {
    text.contains('_') && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// The tables, and how many rows each has. A row of any other table is an error.
const TABLES: [(&str, usize); 10] =
    [("A", 34), ("B", 12), ("C", 9), ("D", 16), ("E", 20), ("F", 16), ("G", 10), ("H", 6), ("I", 19), ("J", 17)];
