//! Reads the crate's modules and the names in them. Code under `#[cfg(test)]` and the module `docs` are skipped.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, mem,
};

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{
    Attribute, ImplItem, Item, Lit, Meta, Token, TraitItem,
    parse::{Parse as _, ParseStream, Parser as _},
    punctuated::Punctuated,
    visit::{self, Visit},
};

#[derive(Default)]
pub struct Source {
    /// Keyed by path: `crate::refresh::grace`.
    modules: BTreeMap<String, Module>,
    /// Each path, with the module that it is relative to.
    paths: Vec<(String, Place, Vec<String>)>,
    /// Identifiers, and string literals in lower case and quotes.
    pub words: Vec<(String, Place)>,
    /// Constants and statics of modules and types, except those in implementations of traits.
    pub constants: Vec<(String, Place)>,
}

#[derive(Default)]
struct Module {
    file: String,
    /// The name in this module, and the path that is imported.
    imports: Vec<(String, Vec<String>)>,
    globs: Vec<Vec<String>>,
}

/// A line of a file in `src`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub file: String,
    pub line: usize,
}

/// What a path resolves to: a file of the crate, or a path outside of the crate.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    File(String),
    Outside(String),
}

impl Source {
    /// Reads `lib.rs` and the files of the modules that it declares, directly or not.
    ///
    /// # Panics
    ///
    /// Panics if a file is missing or does not parse.
    pub fn read(file: impl Fn(&str) -> Option<String>) -> Self {
        let mut source = Self::default();
        let mut pending = vec!["crate".to_owned()];
        while let Some(module) = pending.pop() {
            let stem = module.strip_prefix("crate::").unwrap_or("lib").replace("::", "/");
            let found = [format!("{stem}.rs"), format!("{stem}/mod.rs")]
                .into_iter()
                .find_map(|name| Some((file(&name)?, name)));
            let (text, file) = found.unwrap_or_else(|| panic!("{module} has no file"));
            let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
            let mut reader = Reader { source: &mut source, module, file, children: Vec::new() };
            reader.declare();
            reader.visit_file(&syntax);
            let mut found = Vec::new();
            constants(&syntax.items, &mut found);
            for constant in found {
                let place = reader.place(constant.span());
                reader.source.constants.push((constant.to_string(), place));
            }
            pending.extend(reader.children.into_iter().rev());
        }
        source
    }

    pub fn files(&self) -> BTreeSet<&str> {
        self.modules.values().map(|module| module.file.as_str()).collect()
    }

    /// Returns what each path resolves to.
    pub fn references(&self) -> Vec<(&Place, Target)> {
        let mut references = Vec::new();
        for (module, place, path) in &self.paths {
            let mut targets = BTreeSet::new();
            self.resolve(module, path, 0, &mut targets);
            references.extend(targets.into_iter().map(|target| (place, target)));
        }
        references
    }

    /// Returns the pairs of files of which the first imports the second, with the first line that does.
    pub fn imports(&self) -> BTreeMap<(&str, String), usize> {
        let mut imports = BTreeMap::new();
        for (place, target) in self.references() {
            if let Target::File(file) = target
                && file != place.file
            {
                let line = imports.entry((place.file.as_str(), file)).or_insert(place.line);
                *line = place.line.min(*line);
            }
        }
        imports
    }

    /// Resolves a path: to the file of the innermost module that it names and, where it names an import, to what the
    /// import resolves to.
    fn resolve(&self, from: &str, path: &[String], depth: usize, targets: &mut BTreeSet<Target>) {
        let mut at = from.to_owned();
        for (index, name) in path.iter().enumerate() {
            let next = match name.as_str() {
                "crate" => name.clone(),
                "self" => at.clone(),
                "super" => at.rsplit_once("::").map_or("crate", |(parent, _)| parent).to_owned(),
                name => format!("{at}::{name}"),
            };
            if self.modules.contains_key(&next) {
                at = next;
                continue;
            }
            let Module { imports, globs, .. } = &self.modules[&at];
            // `use http;` resolves to itself.
            for (_, import) in imports.iter().filter(|(alias, import)| alias == name && import[0] != *name && depth < 8)
            {
                self.resolve(&at, &[import, &path[index + 1..]].concat(), depth + 1, targets);
            }
            if index == 0 {
                targets.insert(Target::Outside(path.join("::")));
                for glob in globs.iter().filter(|_| depth == 0) {
                    self.resolve(&at, &[glob, path].concat(), 1, targets);
                }
                return;
            }
            break;
        }
        targets.insert(Target::File(self.modules[&at].file.clone()));
    }
}

struct Reader<'a> {
    source: &'a mut Source,
    module: String,
    file: String,
    /// The modules that have files of their own.
    children: Vec<String>,
}

/// A path that is being read.
#[derive(Clone, Default)]
struct Path {
    names: Vec<String>,
    alias: Option<String>,
    in_use: bool,
    line: usize,
}

impl Reader<'_> {
    fn declare(&mut self) -> &mut Module {
        let module = self.source.modules.entry(self.module.clone()).or_default();
        module.file.clone_from(&self.file);
        module
    }

    fn place(&self, span: Span) -> Place {
        Place { file: self.file.clone(), line: span.start().line }
    }

    /// Reads the tokens of a macro or, with the path that it continues, of a `use` tree.
    fn tokens(&mut self, tokens: TokenStream, start: &Path) {
        let (mut path, mut colons) = (start.clone(), 0);
        for token in tokens {
            let before = mem::take(&mut colons);
            let is_joined = before == 2;
            match token {
                TokenTree::Ident(ident) if path.alias.is_some() || path.in_use && ident == "as" => {
                    path.alias = Some(ident.to_string());
                }
                TokenTree::Ident(ident) => {
                    self.visit_ident(&ident);
                    if !is_joined {
                        self.end(&mut path, start);
                    }
                    path.line = ident.span().start().line;
                    if ident == "use" { path.in_use = true } else { path.names.push(ident.to_string()) }
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons = before + 1,
                TokenTree::Punct(punct) if is_joined && punct.as_char() == '*' => path.names.push("*".into()),
                TokenTree::Punct(punct) => {
                    self.end(&mut path, start);
                    path.in_use &= punct.as_char() != ';';
                }
                TokenTree::Group(group) if is_joined => {
                    self.tokens(group.stream(), &path);
                    path.names.clone_from(&start.names);
                }
                TokenTree::Group(group) => {
                    self.end(&mut path, start);
                    self.tokens(group.stream(), &path);
                }
                TokenTree::Literal(literal) => self.visit_lit(&Lit::new(literal)),
            }
        }
        self.end(&mut path, start);
    }

    /// Records a path, unless it is a lone name, and starts the next one.
    fn end(&mut self, path: &mut Path, start: &Path) {
        let next = Path { in_use: path.in_use, ..start.clone() };
        let Path { mut names, alias, in_use, line } = mem::replace(path, next);
        if names.len() == start.names.len() || names.len() == 1 && !in_use {
            return;
        }
        if names.len() > 1 {
            names.pop_if(|last| last == "self");
        }
        self.source.paths.push((self.module.clone(), Place { file: self.file.clone(), line }, names.clone()));
        let last = names.last().cloned().unwrap_or_default();
        if in_use && last == "*" {
            names.pop();
            self.declare().globs.push(names);
        } else if in_use {
            self.declare().imports.push((alias.unwrap_or(last), names));
        }
    }
}

/// Skips nodes under `#[cfg(test)]`.
macro_rules! visit_unless_test {
    ($($visit:ident($node:ty);)*) => {
        $(fn $visit(&mut self, node: &$node) {
            if !is_test(node) {
                visit::$visit(self, node);
            }
        })*
    };
}

impl Visit<'_> for Reader<'_> {
    visit_unless_test! {
        visit_item(Item);
        visit_impl_item(ImplItem);
        visit_trait_item(TraitItem);
        visit_stmt(syn::Stmt);
        visit_field(syn::Field);
        visit_variant(syn::Variant);
        visit_arm(syn::Arm);
    }

    fn visit_item_mod(&mut self, node: &syn::ItemMod) {
        let path = format!("{}::{}", self.module, node.ident);
        if node.content.is_some() {
            let parent = mem::replace(&mut self.module, path);
            self.declare();
            visit::visit_item_mod(self, node);
            self.module = parent;
        } else if path != "crate::docs" {
            self.children.push(path);
        }
    }

    fn visit_item_use(&mut self, node: &syn::ItemUse) {
        self.tokens(node.tree.to_token_stream(), &Path { in_use: true, ..Path::default() });
    }

    fn visit_item_extern_crate(&mut self, node: &syn::ItemExternCrate) {
        let alias = node.rename.as_ref().map(|(_, alias)| alias.to_string());
        let line = node.ident.span().start().line;
        self.end(&mut Path { names: vec![node.ident.to_string()], alias, in_use: true, line }, &Path::default());
    }

    fn visit_path(&mut self, node: &syn::Path) {
        let names: Vec<_> = node.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let line = node.segments.last().map_or(0, |segment| segment.ident.span().start().line);
        self.end(&mut Path { names, line, ..Path::default() }, &Path::default());
        visit::visit_path(self, node);
    }

    fn visit_token_stream(&mut self, tokens: &TokenStream) {
        self.tokens(tokens.clone(), &Path::default());
    }

    /// `pub(in path)` imports nothing.
    fn visit_visibility(&mut self, _: &syn::Visibility) {}

    fn visit_ident(&mut self, node: &Ident) {
        self.source.words.push((node.to_string(), self.place(node.span())));
    }

    fn visit_lit(&mut self, node: &Lit) {
        let value = match node {
            Lit::Str(text) => text.value(),
            Lit::ByteStr(bytes) => String::from_utf8_lossy(&bytes.value()).into_owned(),
            _ => return,
        };
        self.source.words.push((format!("{:?}", value.to_ascii_lowercase()), self.place(node.span())));
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}", self.file, self.line)
    }
}

/// Collects the constants and statics of modules and types, except those in implementations of traits.
fn constants<'a>(items: &'a [Item], found: &mut Vec<&'a Ident>) {
    for item in items.iter().filter(|item| !is_test(*item)) {
        match item {
            Item::Const(constant) if constant.ident != "_" => found.push(&constant.ident),
            Item::Static(constant) => found.push(&constant.ident),
            Item::Mod(module) => module.content.iter().for_each(|(_, items)| constants(items, found)),
            Item::Trait(parent) => found.extend(parent.items.iter().filter_map(|item| match item {
                TraitItem::Const(constant) if !is_test(item) => Some(&constant.ident),
                _ => None,
            })),
            Item::Impl(parent) if parent.trait_.is_none() => {
                found.extend(parent.items.iter().filter_map(|item| match item {
                    ImplItem::Const(constant) if !is_test(item) => Some(&constant.ident),
                    _ => None,
                }))
            }
            _ => {}
        }
    }
}

fn is_test(node: &impl ToTokens) -> bool {
    let leading = |input: ParseStream<'_>| {
        let attributes = Attribute::parse_outer(input)?;
        TokenStream::parse(input).map(|_| attributes)
    };
    let is_cfg_test = |attribute: &Attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args().is_ok_and(|predicate| requires_test(&predicate))
    };
    leading.parse2(node.to_token_stream()).is_ok_and(|attributes| attributes.iter().any(is_cfg_test))
}

fn requires_test(predicate: &Meta) -> bool {
    let Meta::List(list) = predicate else { return predicate.path().is_ident("test") };
    let Ok(inner) = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) else { return false };
    let is = |name| list.path.is_ident(name);
    is("all") && inner.iter().any(requires_test) || is("any") && inner.iter().all(requires_test)
}
