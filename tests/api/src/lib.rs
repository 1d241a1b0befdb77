//! The public API, as rustdoc sees it, line by line.

#[cfg(test)]
mod tests {
    use std::{env, fmt::Write as _, fs, path::Path};

    #[test]
    fn the_public_api_is_as_listed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let json = root.join("../../target/doc/tower_crossmint_auth.json");
        let api = public_api::Builder::from_rustdoc_json(&json)
            .omit_blanket_impls(true)
            .omit_auto_trait_impls(true)
            .build()
            .unwrap_or_else(|error| panic!("{}: {error}; `.ci/run api` makes it", json.display()));
        let found = api.items().fold(String::new(), |mut lines, item| {
            writeln!(lines, "{item}").expect("a string takes all");
            lines
        });
        let list = root.join("public-api.txt");
        if env::var_os("ACCEPT").is_some() {
            fs::write(&list, &found).expect("the list can be written");
        }
        let listed = fs::read_to_string(&list).unwrap_or_default();
        let changes = |sign: char, a: &str, b: &str| -> Vec<String> {
            a.lines().filter(|line| !b.lines().any(|other| other == *line)).map(|line| format!("{sign} {line}")).collect()
        };
        let changes = [changes('-', &listed, &found), changes('+', &found, &listed)].concat();
        assert!(changes.is_empty(), "the public API has changed; ACCEPT=1 accepts it:\n{}", changes.join("\n"));
    }
}
