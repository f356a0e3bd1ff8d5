//! Tests of the report as a whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::frame::home;
use super::plot::svg;
use super::*;
use crate::results::{Cell, Claim, Results, Table, Verdict};

/// Elements of `text` as (name, attributes). Checks that tags balance, attributes are quoted and text is escaped.
fn elements(text: &str, void: &[&str]) -> Vec<(String, BTreeMap<String, String>)> {
    let (mut found, mut open) = (Vec::new(), Vec::<String>::new());
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let (before, tag) = rest.split_at(start);
        // Style sheets are raw text in HTML; ours hold neither `<` nor `&`.
        assert!(
            !before.contains('>') || open.last().is_some_and(|name| name == "style"),
            "bare > in {before:?}"
        );
        for piece in before.split('&').skip(1) {
            let entity = piece.split(';').next().unwrap();
            assert!(["amp", "lt", "gt", "quot", "#39"].contains(&entity), "bare & in {before:?}");
        }
        let end = tag.find('>').expect("a tag ends");
        let (inside, after) = (&tag[1..end], &tag[end + 1..]);
        rest = after;
        if inside == "script" {
            // Raw text up to its end tag.
            rest = &after[after.find("</script>").expect("a script ends")..];
        }
        if inside.starts_with('!') {
            continue;
        }
        // In HTML the next cell or row ends the last one, as the end of their section does.
        let begins = |names: &[&str]| names.contains(&inside.split(' ').next().unwrap_or(inside));
        let cells = (&["td", "th"][..], &["td", "th", "tr", "/tr", "/tbody"][..]);
        let rows = (&["tr"][..], &["tr", "/tbody"][..]);
        for (ended, by) in [cells, rows] {
            if begins(by) && open.last().is_some_and(|name| ended.contains(&name.as_str())) {
                open.pop();
            }
        }
        if let Some(name) = inside.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "after {before:?}");
            continue;
        }
        let inside_without_slash = inside.strip_suffix('/').unwrap_or(inside);
        let (name, mut attributes) =
            inside_without_slash.split_once(' ').unwrap_or((inside_without_slash, ""));
        assert!(name.chars().all(|letter| letter.is_ascii_alphanumeric()), "{name:?}");
        let mut pairs = BTreeMap::new();
        while let Some((key, after)) = attributes.trim_start().split_once("=\"") {
            let (value, after) = after.split_once('"').expect("a quoted value ends");
            assert!(pairs.insert(key.to_owned(), value.to_owned()).is_none(), "{key} twice in {inside}");
            attributes = after;
        }
        assert!(attributes.trim().is_empty(), "{attributes:?} in {inside:?}");
        if !inside.ends_with('/') && !void.contains(&name) {
            open.push(name.to_owned());
        }
        found.push((name.to_owned(), pairs));
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    found
}

fn written() -> (tempfile::TempDir, Results, ReportPaths) {
    let dir = tempfile::tempdir().unwrap();
    let results = fabricated::results();
    let paths = write(dir.path(), &results).unwrap();
    (dir, results, paths)
}

/// All files below `dir` with their bytes.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

#[test]
fn every_promised_file_exists_and_no_other() {
    let (dir, _, paths) = written();
    let ReportPaths { json, html, markdown, csv, table_markdown, figures } = paths;
    let mut promised: Vec<PathBuf> =
        [json, html, markdown].into_iter().chain(csv).chain(table_markdown).chain(figures).collect();
    promised.sort();
    let files: Vec<PathBuf> = snapshot(dir.path()).into_keys().collect();
    assert_eq!(files, promised);
}

#[cfg(unix)]
#[test]
fn files_are_as_readable_as_any_other_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, _, paths) = written();
    let plain = dir.path().join("plain");
    fs::write(&plain, "").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&paths.html), mode(&plain));
}

#[test]
fn equal_results_give_equal_bytes_also_over_an_earlier_report() {
    let (dir, results, _) = written();
    let first = snapshot(dir.path());
    write(dir.path(), &results).unwrap();
    assert_eq!(snapshot(dir.path()), first);
}

#[test]
fn results_read_back_from_disk_render_the_same_report() {
    let (dir, _, paths) = written();
    let first = snapshot(dir.path());
    let back: Results = serde_json::from_slice(&fs::read(&paths.json).unwrap()).unwrap();
    write(dir.path(), &back).unwrap();
    assert_eq!(snapshot(dir.path()), first);
}

#[test]
fn a_refused_report_leaves_the_earlier_one_alone() {
    let (dir, mut results, _) = written();
    let first = snapshot(dir.path());
    results.provenance.seed += 1;
    results.claims[0].effect = f64::NAN;
    assert_eq!(write(dir.path(), &results).unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(snapshot(dir.path()), first);
}

#[test]
fn a_file_that_cannot_be_written_leaves_the_earlier_ones_alone() {
    let (dir, mut results, paths) = written();
    fs::remove_dir_all(dir.path().join("figures")).unwrap();
    // A file where the folder should be: rendering succeeds, writing does not.
    fs::write(dir.path().join("figures"), "in the way").unwrap();
    let first = snapshot(dir.path());
    results.provenance.seed += 1;
    write(dir.path(), &results).unwrap_err();
    assert_eq!(snapshot(dir.path()), first, "{paths:?}");
}

#[test]
fn drawings_are_well_formed_and_self_contained() {
    let (_dir, _, paths) = written();
    for path in &paths.figures {
        let text = fs::read_to_string(path).unwrap();
        let elements = elements(&text, &[]);
        assert_eq!(elements[0].0, "svg");
        assert_eq!(elements[0].1["xmlns"], "http://www.w3.org/2000/svg");
        assert!(elements.len() > 20, "{}", path.display());
        assert!(elements.iter().all(|(name, _)| !["image", "use", "script", "a"].contains(&name.as_str())));
        assert!(!text.contains("NaN") && !text.contains("inf"), "{}", path.display());
        for class in elements
            .iter()
            .filter_map(|element| element.1.get("class"))
            .flat_map(|classes| classes.split(' '))
        {
            assert!(
                class == "plot" || svg::STYLE.contains(&format!(".{class}")),
                "class {class} has no style"
            );
        }
    }
}

#[test]
fn drawings_stay_inside_their_panel() {
    let (_dir, _, paths) = written();
    for path in &paths.figures {
        let elements = elements(&fs::read_to_string(path).unwrap(), &[]);
        let number = |element: &BTreeMap<String, String>, key: &str| {
            element.get(key).map(|text| text.parse::<f64>().unwrap())
        };
        let (width, height) =
            (number(&elements[0].1, "width").unwrap(), number(&elements[0].1, "height").unwrap());
        for (name, attributes) in &elements {
            let extent = |key: &str| number(attributes, key).unwrap_or(0.0);
            let (right, bottom) = (extent("x") + extent("width"), extent("y") + extent("height"));
            assert!(
                extent("x") >= 0.0 && extent("y") >= 0.0 && right <= width && bottom <= height,
                "{name} {attributes:?}"
            );
        }
    }
}

#[test]
fn the_page_holds_everything_and_fetches_nothing() {
    let (dir, results, paths) = written();
    let page = fs::read_to_string(&paths.html).unwrap();
    let elements = elements(&page, &["meta"]);
    let ids: Vec<&String> = elements.iter().filter_map(|element| element.1.get("id")).collect();
    let tables = results.tables.iter().map(|table| format!("table-{}", table.id));
    let figures = results.figures.iter().map(|figure| format!("figure-{}", figure.id));
    let claims = results.claims.iter().map(|claim| format!("claim-{}", claim.id));
    for id in tables.chain(figures).chain(claims) {
        assert_eq!(ids.iter().filter(|other| **other == &id).count(), 1, "{id}");
    }
    for claim in &results.claims {
        let texts = [&claim.claim, &claim.because, &claim.statistic, &claim.source, &cell::effect(claim)];
        for text in texts.into_iter().chain(claim.rows.iter().flat_map(|row| [&row.measure, &row.against])) {
            assert!(page.contains(&page::words(text)), "{text}");
        }
        assert!(page.contains(&cell::p_value(claim)));
    }
    // Tables without a layout of their own show every cell: as a cell, or once in the caption where all are equal.
    let cells = |table: &Table| {
        let varies = |column: &usize| table.rows.iter().any(|row| row[*column] != table.rows[0][*column]);
        table.rows.len() * (0..table.columns.len()).filter(varies).count()
    };
    let section = |id: &str| {
        let start = page.find(&format!("<section id=\"table-{id}\"")).unwrap();
        &page[start..start + page[start..].find("</section>").unwrap()]
    };
    let other = results.tables.iter().find(|table| table.id == "T5a").unwrap();
    let body = section("T5a").split("</thead>").nth(1).unwrap();
    assert_eq!(body.matches("<td").count() + body.matches("<th").count(), cells(other));
    for (name, attributes) in &elements {
        assert!(!["link", "img", "iframe", "object", "base"].contains(&name.as_str()), "{name}");
        for (key, value) in attributes {
            // A link may lead out; nothing may be loaded from there.
            let leads_out = name == "a" && key == "href";
            assert!(
                !key.starts_with("on")
                    && key != "src"
                    && key != "xmlns"
                    && (leads_out || !value.contains("http")),
                "{key}={value}"
            );
        }
        if let Some(target) = attributes.get("href").filter(|target| !target.starts_with("https://")) {
            match target.strip_prefix('#') {
                Some(anchor) => assert!(ids.iter().any(|id| *id == anchor), "{target}"),
                None => assert!(dir.path().join(target).is_file(), "{target}"),
            }
        }
    }
    for style in [include_str!("page/page.css"), svg::STYLE] {
        assert!(!["url(", "@import", "http", "<", "&"].iter().any(|word| style.contains(word)));
    }
    let script = include_str!("page/page.js");
    for word in ["fetch", "http", "import", "XMLHttpRequest", "eval", "innerHTML", "</script"] {
        assert!(!script.contains(word), "{word}");
    }
    assert_eq!(elements.iter().filter(|(name, _)| name == "script").count(), 1);
}

#[test]
fn figures_stand_below_their_table() {
    let results = fabricated::results();
    let homes: Vec<Option<&str>> =
        results.figures.iter().map(|figure| home(figure, &results.tables).map(String::as_str)).collect();
    assert_eq!(homes, [Some("T5a"), Some("T1"), Some("T2"), None, None, None]);
}

#[test]
fn what_was_not_measured_does_not_look_like_a_number() {
    let mut results = fabricated::results();
    let claim = &mut results.claims[0];
    (claim.verdict, claim.because, claim.n) = (Verdict::NotMeasured, "needs T2 and T3".into(), 0);
    claim.rows.clear();
    results.tables[3].rows[0][1] = Cell::Empty(());
    let page = page::report(&results);
    let Claim { id, .. } = &results.claims[0];
    let start = page.find(&format!("id=\"claim-{id}\"")).unwrap();
    let card = &page[start..start + page[start..].find("</article>").unwrap()];
    assert!(card.contains("not measured") && card.contains("needs T2 and T3"), "{card}");
    assert!(!card.contains("<dd>") && !card.contains("class=\"n\""), "{card}");
    assert!(page.contains("<span class=\"none\" title=\"not measured\">"));
}

#[test]
fn claims_tables_and_terms_are_linked_both_ways() {
    let page = page::report(&fabricated::results());
    let section = |id: &str, end: &str| {
        let start = page.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("{id}"));
        &page[start..start + page[start..].find(end).unwrap()]
    };
    assert!(section("claim-C2", "</article>").contains("href=\"#table-T2\""));
    assert!(section("table-T2", "</section>").contains("href=\"#claim-C2\""));
    assert!(section("table-T1", "</section>").contains("href=\"#task-hierarchy\""));
    assert!(section("task-hierarchy", "</div>").contains("href=\"#table-T1\""));
    assert!(section("table-T1", "</section>").contains("href=\"#term-density\""));
    assert!(section("term-density", "</div>").contains("href=\"#table-T1\""));
}
