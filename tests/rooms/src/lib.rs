//! Checks the structure of the crate. A room is a top-level module in `src`; the rules are the tables below.

mod source;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use self::source::{Place, Source, Target};

/// Each room and the rooms that it may import, all of which are listed above it.
pub const ROOMS: Rooms<'_> = &[
    ("secret", &[]),
    ("clock", &[]),
    ("sync", &[]),
    ("per_thread", &[]),
    ("json", &[]),
    ("host", &[]),
    ("log_throttle", &[]),
    ("error", &[]),
    ("session", &[LEAVES]),
    ("config", &[LEAVES, "session"]),
    ("stats", &[LEAVES, "session config"]),
    ("task_tracker", &[LEAVES, "session config"]),
    // The owners of state. `csrf`, `cookies`, `upstream` and `jwks` do not import each other.
    ("csrf", &[SHARED]),
    ("bearer", &[SHARED]),
    ("cookies", &[SHARED]),
    ("upstream", &[SHARED]),
    ("jwks", &[SHARED]),
    ("store", &[SHARED]),
    ("verify", &[SHARED, "jwks"]),
    ("refresh", &[SHARED, "cookies store upstream verify"]),
    ("handle_registry", &[SHARED]),
    ("authorize", &[SHARED, OWNERS, "handle_registry"]),
    ("auth", &[SHARED, OWNERS, "authorize"]),
    ("layer", &[SHARED, OWNERS, "authorize auth"]),
    ("fuzzing", &[SHARED, OWNERS, "layer"]),
    ("testing", &["host error session config"]),
    // Re-exports only: no room may import from the crate root.
    ("lib", &["*"]),
];
const LEAVES: &str = "secret clock sync per_thread json host log_throttle error";
const SHARED: &str = "secret clock sync per_thread json host log_throttle error session config stats task_tracker";
const OWNERS: &str = "csrf bearer cookies store upstream jwks verify refresh";

/// The rooms that are not part of the engine.
pub const SHELL: &[&str] = &["layer", "testing", "lib"];

/// What the engine does not name: tower, bodies, requests and responses.
pub const SHELL_ONLY: &[&str] = &[
    "tower",
    "tower_layer",
    "tower_service",
    "axum",
    "axum_core",
    "http_body",
    "http_body_util",
    "hyper",
    "hyper_util",
    "http::Request",
    "http::Response",
    "http::request",
    "http::response",
    "http::*",
];

/// What only `cookies` names: the header fields that it writes. The files in the second table are exceptions.
pub const COOKIES_ONLY: &[&str] = &["SET_COOKIE", "CACHE_CONTROL", r#""set-cookie""#, r#""cache-control""#];
pub const COOKIES_EXCEPTIONS: &[&str] = &["testing/browser.rs"];

pub type Rooms<'a> = &'a [(&'a str, &'a [&'a str])];

/// Finds circles of imports between files.
pub fn circles(source: &Source) -> Vec<String> {
    let imports = source.imports();
    let mut reached: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for file in source.files() {
        let mut pending = vec![file];
        while let Some(from) = pending.pop() {
            let next = imports.keys().filter(|(importer, _)| *importer == from).map(|(_, to)| to.as_str());
            pending.extend(next.filter(|to| reached.entry(file).or_default().insert(to)));
        }
    }
    let reaches = |from: &str, to: &str| reached.get(from).is_some_and(|files| files.contains(to));
    let mut circles: BTreeMap<&str, String> = BTreeMap::new();
    for ((from, to), line) in imports.iter().filter(|((from, to), _)| reaches(to, from)) {
        let first = reached[from].iter().find(|file| reaches(file, from)).expect("it reaches itself");
        *circles.entry(first).or_insert("an import circle:".into()) +=
            &format!("\n  src/{from}:{line} imports src/{to}");
    }
    circles.into_values().collect()
}

/// Finds imports that the table does not allow, files that are in none of its rooms, and rows that are out of order.
pub fn forbidden_imports(source: &Source, rooms: Rooms<'_>) -> Vec<String> {
    let rules: BTreeMap<&str, BTreeSet<&str>> =
        rooms.iter().map(|(room, may)| (*room, may.iter().flat_map(|names| names.split(' ')).collect())).collect();
    let unlisted = source.files().into_iter().filter(|file| !rules.contains_key(room(file)));
    let mut found: Vec<_> = unlisted.map(|file| format!("src/{file} is in no room of the table")).collect();
    for (index, (name, _)) in rooms.iter().enumerate() {
        let above = |other: &&str| *other == "*" || rooms[..index].iter().any(|(above, _)| above == other);
        let below = rules[name].iter().filter(|other| !above(other));
        found.extend(below.map(|other| format!("`{name}` may import `{other}`, which is not above it in the table")));
    }
    for ((from, to), line) in source.imports() {
        let allowed = |rule: &BTreeSet<&str>| rule.contains(room(&to)) || rule.contains("*");
        if room(from) != room(&to) && !rules.get(room(from)).is_some_and(allowed) {
            found.push(format!("src/{from}:{line}: `{}` may not import `{}` (src/{to})", room(from), room(&to)));
        }
    }
    found
}

/// Finds names in the engine that only the shell may use.
pub fn shell_in_engine(source: &Source) -> Vec<String> {
    let is_shell = |path: &str, name: &&str| {
        path.strip_prefix(*name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let engine = source.references().into_iter().filter(|(place, _)| !SHELL.contains(&room(&place.file)));
    let found = engine.filter_map(|(place, target)| match target {
        Target::Outside(path) if SHELL_ONLY.iter().any(|name| is_shell(&path, name)) => {
            Some(format!("{place}: {path}"))
        }
        _ => None,
    });
    found.collect()
}

/// Finds constants that share a name.
pub fn repeated_constants(source: &Source) -> Vec<String> {
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, place) in source.constants.iter().filter(|(_, place)| room(&place.file) != "testing") {
        places.entry(name).or_default().push(place.to_string());
    }
    places.retain(|_, places| places.len() > 1);
    places.into_iter().map(|(name, places)| format!("{name}: {}", places.join(", "))).collect()
}

/// Finds names outside of `cookies` that only `cookies` may use.
pub fn cookies_elsewhere(source: &Source) -> Vec<String> {
    let allowed = |place: &Place| room(&place.file) == "cookies" || COOKIES_EXCEPTIONS.contains(&place.file.as_str());
    let elsewhere =
        source.words.iter().filter(|(word, place)| COOKIES_ONLY.contains(&word.as_str()) && !allowed(place));
    elsewhere.map(|(word, place)| format!("{place}: {word}")).collect()
}

/// Returns the room of a file: `refresh` for `refresh/grace.rs`.
fn room(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap_or(file)
}
