//! The rules applied to the crate, and the checks applied to small sources that break them.

use std::{fs, path::Path};

use super::*;

#[test]
fn files_do_not_import_each_other_in_a_circle() {
    assert_none(&circles(&the_crate()));
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    assert_none(&forbidden_imports(&the_crate(), ROOMS));
}

#[test]
fn the_engine_names_neither_tower_nor_bodies_nor_requests_nor_responses() {
    assert_none(&shell_in_engine(&the_crate()));
}

#[test]
fn names_of_constants_are_unique() {
    assert_none(&repeated_constants(&the_crate()));
}

#[test]
fn only_cookies_names_the_header_fields_that_it_writes() {
    assert_none(&cookies_elsewhere(&the_crate()));
}

/// Ways in which `a.rs` can name an item of `b.rs` or of `b/inner.rs`, which is in the same room.
const IMPORTS: &[(&str, &str)] = &[
    ("use", "use crate::b::B;"),
    ("nested use", "use crate::{c::C, b::{self, B}};"),
    ("deeper", "use super::{b::inner::{Inner}};"),
    ("glob", "use crate::b::*;"),
    ("re-export", "pub(crate) use super::b::B;"),
    ("rename", "use crate::{b as other};"),
    ("renamed root", "mod inline { use super::super as root; fn f() { root::b::f() } }"),
    ("use in a function", "fn f() { use crate::b::inner::*; }"),
    ("path in code", "fn f() { crate::b::f() }"),
    ("path in a type", "struct A(Vec<Option<super::b::B>>);"),
    ("path in a pattern", "fn f(x: u8) { match x { crate::b::inner::X => {} _ => {} } }"),
    ("path of a trait", "impl crate::b::B for A {}"),
    ("path in a macro", r#"fn f() { println!("{}", 1 + crate::b::f(&[2])) }"#),
    ("use in a macro", "select! { _ = x => { use crate::{c::C, b::{B}}; } }"),
    ("path of a macro", "crate::b::declare! {}"),
    ("path in macro_rules", "macro_rules! m { ($x:ident) => { $crate::b::f($x) } }"),
    ("inline module", "mod inline { mod deeper { use super::super::super::b::B; } }"),
    ("not only in tests", "#[cfg(any(test, fuzzing))] use crate::b::B;"),
    ("through a re-export", "fn f() { crate::c::through::X }"),
    ("through a glob", "use crate::c::*; fn f() { through::X }"),
];

/// Code that imports nothing of `b`.
const NO_IMPORTS: &[(&str, &str)] = &[
    ("links in documentation", "/// [`B`](crate::b::B)\nstruct A;"),
    ("test module", "#[cfg(test)] mod tests { use crate::b::B; }"),
    ("test module's file", "#[cfg(test)] mod missing;"),
    ("test statement", "fn f() { #[cfg(test)] return crate::b::f(); }"),
    ("test method", "impl A { #[cfg(all(test, unix))] fn f() { crate::b::f() } }"),
    ("other names", "use bytes::b; fn f(b: b::B) { b::B; ::b::f() }"),
    ("visibility", "pub(in crate::b) struct A;"),
];

#[test]
fn every_form_of_import_is_found() {
    for (name, code) in IMPORTS {
        let found = forbidden_imports(&with_a(code), &[("a", &["c"]), ("b", &["a"]), ("c", &["*"]), ("lib", &["*"])]);
        assert!(found.iter().any(|line| line.starts_with("src/a.rs:1: `a` may not import `b`")), "{name}: {found:?}");
        let found = circles(&with_a(code));
        assert!(found.len() == 1 && found[0].contains("src/a.rs:1 imports src/b"), "{name}: {found:?}");
    }
    for (name, code) in NO_IMPORTS {
        assert_eq!(circles(&with_a(code)), [""; 0], "{name}");
    }
}

#[test]
fn an_import_of_the_root_is_found() {
    for code in
        ["use crate::B;", "use super::*;", "fn f() { crate::f() }", "use crate as root;", "use super::{self as up};"]
    {
        let found = forbidden_imports(&with_a(code), &[("b", &[]), ("a", &["b"]), ("c", &["*"]), ("lib", &["*"])]);
        assert!(found.iter().any(|line| line.contains("`a` may not import `lib`")), "{code}: {found:?}");
    }
}

#[test]
fn a_circle_is_reported_with_its_imports_only() {
    let source = source(&[
        ("lib.rs", "mod a; mod b; mod c; mod d; pub use self::a::A;"),
        ("a.rs", "use crate::b::B;"),
        ("b.rs", "\nuse crate::{c::C, d::D};"),
        ("c.rs", "fn f() { crate::a::f() }"),
        ("d.rs", "struct D;"),
    ]);
    let circle = "an import circle:\n  src/a.rs:1 imports src/b.rs\n  src/b.rs:2 imports src/c.rs\n  src/c.rs:1 imports src/a.rs";
    assert_eq!(circles(&source), [circle]);
}

#[test]
fn a_file_without_a_rule_and_a_table_out_of_order_are_found() {
    let source = source(&[("lib.rs", "mod a; mod docs;"), ("a/mod.rs", "mod x;"), ("a/x.rs", "")]);
    let found = forbidden_imports(&source, &[("c", &["b"]), ("b", &[]), ("lib", &["*"])]);
    assert_eq!(
        found,
        [
            "src/a/mod.rs is in no room of the table",
            "src/a/x.rs is in no room of the table",
            "`c` may import `b`, which is not above it in the table",
        ]
    );
}

#[test]
fn a_name_of_the_shell_is_found_in_the_engine() {
    let planted = [
        "use tower::util::Oneshot;",
        "use tower_service as service;",
        "use {bytes::Bytes, http::{HeaderMap, Response}};",
        "use http::{self as h}; fn f(r: &h::Request<()>) {}",
        "use http::*;",
        "use http::request::Parts;",
        "fn f(body: impl ::http_body::Body) {}",
        "type T = Option<hyper::body::Incoming>;",
        "pin_project! { struct A<S> { s: axum_core::B<S> } }",
        "extern crate hyper_util as server;",
    ];
    for code in planted {
        assert!(!shell_in_engine(&with_a(code)).is_empty(), "{code}");
    }
    let innocent = [
        "use http::{HeaderMap, header::{self, HOST}}; use reqwest::{Response}; fn f(r: Response) { Response::bytes(r) }",
        "#[cfg(test)] mod tests { use http::Request; }",
        "/// [`tower::Service`]\nfn tower(tower: u8) {}",
    ];
    for code in innocent {
        assert_eq!(shell_in_engine(&with_a(code)), [""; 0], "{code}");
    }
    assert_none(&shell_in_engine(&source(&[("lib.rs", "mod layer;"), ("layer/mod.rs", "use http::Request;")])));
}

#[test]
fn a_repeated_constant_is_found() {
    for code in [
        "const MAX: u8 = 1;",
        "static MAX: u8 = 1;",
        "impl A { const MAX: u8 = 1; }",
        "mod x { pub const MAX: u8 = 1; }",
    ] {
        let source = source(&[("lib.rs", "mod a; mod b;"), ("a.rs", code), ("b.rs", "const MAX: u8 = 2;")]);
        assert_eq!(repeated_constants(&source), ["MAX: src/a.rs:1, src/b.rs:1"], "{code}");
    }
    for code in
        ["fn f() { const MAX: u8 = 1; }", "impl T for A { const MAX: u8 = 1; }", "#[cfg(test)] const MAX: u8 = 1;"]
    {
        let source = source(&[
            ("lib.rs", "mod a; mod b; mod testing;"),
            ("a.rs", code),
            ("b.rs", "const MAX: u8 = 2;"),
            ("testing.rs", "const MAX: u8 = 3;"),
        ]);
        assert_eq!(repeated_constants(&source), [""; 0], "{code}");
    }
}

#[test]
fn a_header_field_of_cookies_is_found_elsewhere() {
    let planted = [
        "use http::header::{HOST, SET_COOKIE};",
        "fn f() { x.get(http::header::CACHE_CONTROL) }",
        "use http::header::*; fn f() { x.get(SET_COOKIE) }",
        r#"fn f() { x.get("Set-Cookie") }"#,
        r#"const X: &[u8] = b"cache-control";"#,
        r#"fn f() { assert!(x.has("set-cookie")) }"#,
        "use http::header::{SET_COOKIE as NAME};",
    ];
    for code in planted {
        assert_eq!(cookies_elsewhere(&with_a(code)).len(), 1, "{code}");
        assert_none(&cookies_elsewhere(&source(&[("lib.rs", "mod cookies;"), ("cookies.rs", code)])));
    }
    assert_none(&cookies_elsewhere(&with_a("/// SET_COOKIE\nfn f(set_cookie: u8) { log(\"a Set-Cookie field\") }")));
}

fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

fn the_crate() -> Source {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src");
    Source::read(|file| fs::read_to_string(src.join(file)).ok())
}

fn source(files: &[(&str, &str)]) -> Source {
    Source::read(|name| files.iter().find(|(file, _)| *file == name).map(|(_, code)| (*code).to_owned()))
}

/// A crate whose `a.rs` is the code. `b` imports `a`; `c` re-exports `b::inner`.
fn with_a(code: &str) -> Source {
    source(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", code),
        ("b/mod.rs", "mod inner; use crate::a::A;"),
        ("b/inner.rs", "use crate::a::A;"),
        ("c.rs", "pub(crate) use crate::b::inner as through;"),
    ])
}
