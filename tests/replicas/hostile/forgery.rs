//! Records that were made up.

use super::Sample;

/// A record that was made up: its fields, none for a value that is not a hash.
pub(super) struct Forgery {
    pub(super) name: String,
    pub(super) fields: Vec<(&'static str, Value)>,
}

#[derive(Clone)]
pub(super) enum Value {
    Bytes(Vec<u8>),
    /// The value of the failure that was recorded of the token.
    Genuine,
    /// The first half of it.
    Half,
    /// The name of the record itself.
    Itself,
}

pub(super) fn forgeries(samples: &[Sample]) -> Vec<Forgery> {
    use Value::{Bytes, Genuine, Half, Itself};
    let text = |text: &str| Bytes(text.as_bytes().to_vec());
    let of = |state: &str| samples.iter().find(|sample| sample.state == state).unwrap();
    let sealed = |state: &str| Bytes(of(state).record["v"].clone());
    let mut forgeries = Vec::new();
    let mut add = |name: String, fields: &[(&'static str, Value)]| {
        forgeries.push(Forgery { name, fields: fields.to_vec() });
    };
    for (letter, state) in [("d", "done"), ("r", "refused"), ("e", "ended"), ("f", "failed")] {
        for (name, value) in [
            ("made up", text("junk")),
            ("empty", text("")),
            ("huge", Bytes(vec![b'x'; 300 << 10])),
            ("that of another token", sealed(state)),
            ("that of a claim of another token", sealed("claimed")),
            ("of another kind", Genuine),
            ("half of one", Half),
        ] {
            // A failure's own value is no forgery.
            if letter != "f" || !matches!(value, Genuine) {
                let next = Bytes(of("done").record["x"].clone());
                add(format!("{state}, the value is {name}"), &[("s", text(letter)), ("v", value), ("x", next)]);
            }
        }
        add(format!("{state}, without a value"), &[("s", text(letter)), ("x", Itself)]);
    }
    add("done, next to itself".into(), &[("s", text("d")), ("v", Genuine), ("x", Itself)]);
    add("done, next to nothing".into(), &[("s", text("d")), ("v", Genuine)]);
    for (claim, until, number) in [
        ("claimed for long", FAR, "1"),
        ("claimed twice for long", FAR, "2"),
        ("claimed once, and over", PAST, "1"),
        ("claimed twice, and over", PAST, "2"),
        ("claimed until junk", "junk", "1"),
        ("claimed junk times", PAST, "junk"),
        ("claimed infinitely often", PAST, "inf"),
    ] {
        for (name, value) in
            [("junk", text("junk")), ("of another token", sealed("claimed")), ("of another kind", Genuine)]
        {
            let fields = [
                ("s", text("c")),
                ("f", text("0123456789abcdef")),
                ("v", value),
                ("u", text(until)),
                ("n", text(number)),
            ];
            add(format!("{claim}, the proof is {name}"), &fields);
            let ended = [("t", sealed("ended")), ("l", text("3600000"))];
            add(format!("{claim}, the proof is {name}, and ended"), &[&fields[..], &ended].concat());
        }
    }
    for state in ["", "x", "dd", "a", "g", "z", "s", "l"] {
        add(format!("in the state `{state}`"), &[("s", text(state)), ("v", Genuine)]);
    }
    add("of other fields".into(), &[("other", text("field"))]);
    add("no hash".into(), &[]);
    forgeries
}

/// Milliseconds since the epoch, in the year 5138 and in 1970.
pub(super) const FAR: &str = "99999999999999";
pub(super) const PAST: &str = "1";
