//! What one Rust file imports: a reader that knows comments, strings, `mod`, `use` and paths, and nothing else of Rust.
//!
//! Code under `#[cfg(test)]` is left out.

/// One leaf of a `use` declaration.
#[derive(Debug, PartialEq)]
pub struct Use {
    /// Inline modules around the declaration, outermost first.
    pub inside: Vec<String>,
    /// The path as written, without a renaming; ends in `*` for all names of a module.
    pub path: Vec<String>,
    /// The name it brings into scope, `*` for all.
    pub name: String,
}

/// What one file declares and imports.
#[derive(Debug, Default, PartialEq)]
pub struct Imports {
    /// Every leaf of every `use` declaration.
    pub uses: Vec<Use>,
    /// Paths in code that begin with `crate`, `self` or `super`, each with the inline modules around it.
    pub mentions: Vec<(Vec<String>, Vec<String>)>,
    /// Names of functions, types, traits and constants that the file defines.
    pub items: Vec<String>,
    /// Modules of other files that are declared under `#[cfg(test)]`.
    pub test_modules: Vec<String>,
}

/// Reads a file.
pub fn read(text: &str) -> Imports {
    let tokens = tokens(text);
    let mut imports = Imports::default();
    // Inline modules that are open, each with the depth of braces inside it.
    let mut open: Vec<(String, usize)> = Vec::new();
    let (mut at, mut depth) = (0, 0);
    while at < tokens.len() {
        let inside = || open.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        match tokens[at..] {
            ["#", "!", "[", "cfg", "(", "test", ")", "]", ..] => return Imports::default(),
            ["#", "[", "cfg", "(", "test", ")", "]", ..] => {
                let end = end_of_item(&tokens, at + 7);
                if let Some(name) = tokens[..end].strip_suffix(&[";"]).and_then(|item| match item {
                    [.., "mod", name] => Some(*name),
                    _ => None,
                }) {
                    imports.test_modules.push(name.to_owned());
                }
                at = end;
            }
            ["mod", name, "{", ..] => {
                depth += 1;
                open.push((name.to_owned(), depth));
                at += 3;
            }
            // `impl Trait + use<'a>` is no declaration.
            ["use", next, ..] if next != "<" => {
                let mut tree = Tree { tokens: &tokens, at: at + 1, leaves: Vec::new() };
                tree.read(&[]);
                at = tree.at;
                let leaves = tree.leaves.into_iter();
                imports.uses.extend(leaves.map(|(path, name)| Use { inside: inside(), path, name }));
            }
            ["pub", "(", "in", ..] => at += tokens[at..].iter().position(|t| *t == ")").unwrap_or(1),
            ["crate" | "self" | "super", "::", ..] => {
                let mut path = vec![tokens[at].to_owned()];
                while let ["::", name, ..] = tokens[at + 1..]
                    && is_name(name)
                {
                    path.push(name.to_owned());
                    at += 2;
                }
                imports.mentions.push((inside(), path));
                at += 1;
            }
            ["fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union", name, ..] => {
                imports.items.push(name.to_owned());
                at += 2;
            }
            ["{", ..] => {
                depth += 1;
                at += 1;
            }
            ["}", ..] => {
                open.pop_if(|(_, inner)| *inner == depth);
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ => at += 1,
        }
    }
    imports
}

/// The place after the item that begins here: after its first `;` or its first block, whichever is first.
fn end_of_item(tokens: &[&str], start: usize) -> usize {
    let is_use =
        tokens[start..].iter().find(|t| matches!(**t, "use" | "mod" | "fn" | "impl")) == Some(&"use");
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match *token {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth = depth.saturating_sub(1);
                if depth == 0 && *token == "}" && !is_use {
                    return at + 1;
                }
            }
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// A `use` declaration that is being read.
struct Tree<'a> {
    tokens: &'a [&'a str],
    at: usize,
    /// Paths and the names they bring into scope.
    leaves: Vec<(Vec<String>, String)>,
}

impl Tree<'_> {
    fn next(&mut self) -> &str {
        self.at += 1;
        self.tokens.get(self.at - 1).copied().unwrap_or(";")
    }

    /// Reads one branch below `prefix` and leaves `at` on the token that ends it.
    fn read(&mut self, prefix: &[String]) {
        let mut path = prefix.to_vec();
        let mut name = None;
        loop {
            match self.next() {
                "::" => {}
                "{" => {
                    while !matches!(self.tokens.get(self.at), None | Some(&("}" | ";"))) {
                        self.read(&path);
                        self.at += usize::from(self.tokens.get(self.at) == Some(&","));
                    }
                    self.at += usize::from(self.tokens.get(self.at) == Some(&"}"));
                    return;
                }
                "as" => name = Some(self.next().to_owned()),
                "," | "}" | ";" => {
                    self.at -= 1;
                    break;
                }
                part => path.push(part.to_owned()),
            }
        }
        // `a::{self}` is `a`.
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        if let Some(last) = path.last() {
            let name = name.unwrap_or_else(|| last.clone());
            self.leaves.push((path, name));
        }
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, numbers, `::` and single signs; no comments, strings, characters or lifetimes.
fn tokens(text: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if first.is_whitespace() {
            first.len_utf8()
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(raw) = raw_string(rest) {
            raw
        } else if first == '"' {
            quoted(rest)
        } else if first == '\'' {
            let mut after = rest[1..].chars();
            match (after.next(), after.next()) {
                (Some('\\'), Some(escaped)) => {
                    let begin = 2 + escaped.len_utf8();
                    rest[begin..].find('\'').map_or(rest.len(), |end| begin + end + 1)
                }
                (Some(inner), Some('\'')) => 2 + inner.len_utf8(),
                _ => 1 + rest[1..].find(|c| !is_part(c)).unwrap_or(rest.len() - 1),
            }
        } else {
            let length = if is_part(first) {
                rest.find(|c| !is_part(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            tokens.push(&rest[..length]);
            length
        };
        rest = &rest[length..];
    }
    tokens
}

/// Length of the block comment, with those inside it, that `text` begins with.
fn block_comment(text: &str) -> usize {
    let (mut at, mut depth) = (2, 1);
    while depth > 0 && at < text.len() {
        let pair = text.as_bytes().get(at..at + 2);
        match pair {
            Some(b"/*") => depth += 1,
            Some(b"*/") => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    at
}

/// Length of the raw string that `text` begins with, if it does.
fn raw_string(text: &str) -> Option<usize> {
    let start = ["r", "br", "cr"].into_iter().find_map(|prefix| text.strip_prefix(prefix))?;
    let hashes = start.len() - start.trim_start_matches('#').len();
    let body = start[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = body.find(&close).map_or(body.len(), |end| end + close.len());
    Some(text.len() - body.len() + end)
}

/// Length of the string in quotes that `text` begins with.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(text: &str) -> Vec<String> {
        let leaf = |leaf: &Use| format!("{} as {}", leaf.path.join("::"), leaf.name);
        read(text).uses.iter().map(leaf).collect()
    }

    #[test]
    fn trees_of_uses_are_taken_apart() {
        let text = "pub use a::{self, b::{C, d as e},\n    f::*,};\nuse g;\nfn x() { use super::y as _; }";
        let expected = ["a as a", "a::b::C as C", "a::b::d as e", "a::f::* as *", "g as g", "super::y as _"];
        assert_eq!(uses(text), expected);
        assert_eq!(uses("fn f<'a>() -> impl Fn() + use<'a> { g() }"), [""; 0]);
        assert_eq!(uses("use {a, ::b::{c}}; use d"), ["a as a", "b::c as c", "d as d"]);
    }

    #[test]
    fn paths_in_code_are_found_with_their_modules() {
        let text = "mod inner { mod deep {} fn f() -> super::A { crate::b::c::<u8>(self.d) } }\nconst E: crate::E = 1;";
        let mentions: Vec<(String, String)> =
            read(text).mentions.iter().map(|(inside, path)| (inside.join("::"), path.join("::"))).collect();
        let expected = [("inner", "super::A"), ("inner", "crate::b::c"), ("", "crate::E")];
        assert_eq!(mentions, expected.map(|(inside, path)| (inside.to_owned(), path.to_owned())));
        assert_eq!(read(text).items, ["f", "E"]);
    }

    #[test]
    fn text_and_tests_are_left_out() {
        let text = r##"
            // crate::a::A, "
            /* crate::b::B /* nested */ crate::c::C */
            const S: &str = "crate::d::D \" crate::e::E";
            const R: &str = r#"crate::f::F " crate::g::G"#;
            const Q: (char, char, u8) = ('"', '\'', b'"');
            fn live<'a>(x: &'a str) -> &'a str { x }
            pub(in crate::h) struct P;
            #[cfg(test)]
            use crate::i::{I, J};
            #[cfg(test)]
            pub(crate) mod fabricated;
            #[cfg(test)]
            mod tests {
                fn f() { crate::k::K; }
            }
            fn last() -> crate::z::Z {}
        "##;
        let imports = read(text);
        assert_eq!(imports.uses, []);
        assert_eq!(imports.mentions, [(vec![], vec!["crate".into(), "z".into(), "Z".into()])]);
        assert_eq!(imports.test_modules, ["fabricated"]);
        assert_eq!(read("#![cfg(test)]\nuse crate::a;"), Imports::default());
    }
}
