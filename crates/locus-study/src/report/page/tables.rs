//! The tables and their figures: columns that decide first, what is constant in the caption, rows in groups.

use super::glossary;
use super::layout::{Layout, layout};
use super::{list, words};
use crate::report::cell;
use crate::report::frame::home;
use crate::report::plot::{self, svg::escape};
use crate::results::{Cell, Figure, Results, Table};

/// Rows that one table has on the page at most; its CSV has all.
const MOST_ROWS: usize = 400;
/// Columns of numbers from which on intervals are left to the CSV.
const MANY: usize = 12;

/// A table as HTML.
pub(super) struct Shown {
    pub(super) html: String,
    /// Style of the columns that are no numbers: a rule for a column is shorter than a class in every cell.
    pub(super) columns: String,
    /// Style that names the columns beside their values where the page is narrow.
    pub(super) labels: String,
}

/// What a table shows, as indices of columns and rows.
struct Parts {
    groups: Vec<usize>,
    facts: Vec<usize>,
    columns: Vec<usize>,
    /// Columns with one value, which the caption states.
    constant: Vec<usize>,
    /// Columns that only the CSV has.
    left_out: Vec<usize>,
    rows: Vec<usize>,
}

impl Parts {
    fn new(table: &Table, layout: Layout) -> Self {
        let index = |name: &&str| table.columns.iter().position(|column| column == *name);
        let rows = rows(table, index(&layout.main_sizes));
        let is_constant = |column: usize| {
            rows.len() > 1 && rows.iter().all(|&row| table.rows[row][column] == table.rows[rows[0]][column])
        };
        let found = |names: &[&str]| -> Vec<usize> {
            names.iter().filter_map(index).filter(|&column| !is_constant(column)).collect()
        };
        let (groups, facts) = (found(layout.groups), found(layout.facts));
        let all: Vec<usize> = (0..table.columns.len()).collect();
        let mut columns = if layout.columns.is_empty() {
            all.iter().copied().filter(|&column| !is_constant(column)).collect()
        } else {
            found(layout.columns)
        };
        columns.retain(|column| !groups.contains(column) && !facts.contains(column));
        if columns.is_empty() {
            columns = all.iter().copied().filter(|column| !groups.contains(column)).collect();
        }
        let constant: Vec<usize> =
            all.iter().copied().filter(|&c| is_constant(c) && !columns.contains(&c)).collect();
        let elsewhere = [&groups, &facts, &columns, &constant];
        let left_out = all.into_iter().filter(|c| !elsewhere.iter().any(|some| some.contains(c))).collect();
        Self { groups, facts, columns, constant, left_out, rows }
    }
}

/// Rows that are shown: those of the two main sizes where the table has others too.
fn rows(table: &Table, sizes: Option<usize>) -> Vec<usize> {
    let is_main = |cell: &Cell| matches!(cell, Cell::Text(size) if size == "5 %" || size == "50 %");
    let main: Vec<usize> = match sizes {
        Some(column) => (0..table.rows.len()).filter(|&row| is_main(&table.rows[row][column])).collect(),
        None => Vec::new(),
    };
    let mut rows = if main.is_empty() { (0..table.rows.len()).collect() } else { main };
    rows.truncate(MOST_ROWS);
    rows
}

impl Shown {
    pub(super) fn new(table: &Table, results: &Results) -> Self {
        let layout = layout(&table.id);
        let figures: String = results
            .figures
            .iter()
            .filter(|one| home(one, &results.tables) == Some(&table.id))
            .map(figure_block)
            .collect();
        let figures = match figures.is_empty() {
            true => figures,
            false => format!("<div class=\"figures\">\n{figures}</div>\n"),
        };
        let (id, title) = (&table.id, words(&table.title));
        let parts = Parts::new(table, layout);
        let body = body(table, &parts);
        let stem = id.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
        let drawn = results.figures.iter().any(|one| one.id.split('-').next() == Some(stem));
        let body = match layout.folded && (drawn || !figures.is_empty()) && !body.is_empty() {
            true => format!(
                "<details>\n<summary>The numbers: {} rows</summary>\n{body}</details>\n",
                parts.rows.len()
            ),
            false => body,
        };
        let (above, below) = if layout.folded { (figures, String::new()) } else { (String::new(), figures) };
        let notes = match table.rows.is_empty() {
            true => list("notes unmeasured", &table.notes),
            false => format!(
                "<details class=\"notes\">\n<summary>How to read it</summary>\n{}</details>\n",
                list("notes", &table.notes)
            ),
        };
        let html = format!(
            "<section id=\"table-{id}\">\n<h2><a class=\"id\" href=\"#table-{id}\">{id}</a> {title}</h2>\n{}{above}{body}{below}{notes}\
             </section>\n",
            decides(id, results),
        );
        Self { html, columns: columns(table, &parts), labels: labels(table, &parts) }
    }
}

/// Links to the claims that a table decides.
fn decides(id: &str, results: &Results) -> String {
    let claims: Vec<String> = results
        .claims
        .iter()
        .filter(|claim| crate::claims::tables_of(&claim.id).contains(&id))
        .map(|claim| format!("<a href=\"#claim-{0}\">{0}</a>", claim.id))
        .collect();
    match claims.is_empty() {
        true => String::new(),
        false => format!("<p class=\"quiet\">Bears on {}.</p>\n", claims.join(", ")),
    }
}

/// Style that sets what is no number to the left.
fn columns(table: &Table, parts: &Parts) -> String {
    let rule = |place: usize| format!("#table-{} td:nth-child({})", table.id, place + 1);
    let is_text = |&(_, &column): &(usize, &usize)| !cell::is_numeric(&table.rows, column);
    let texts: Vec<String> =
        parts.columns.iter().enumerate().skip(1).filter(is_text).map(|(place, _)| rule(place)).collect();
    match texts.is_empty() || table.rows.is_empty() {
        true => String::new(),
        false => format!("{} {{ text-align: left }}\n", texts.join(", ")),
    }
}

/// Names of the columns for narrow pages, where every row becomes a list.
fn labels(table: &Table, parts: &Parts) -> String {
    if table.rows.is_empty() {
        return String::new();
    }
    let rule = |(place, &column): (usize, &usize)| {
        let name = table.columns[column]
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('<', "\\3c ")
            .replace('&', "\\26 ");
        format!("#table-{} tbody td:nth-child({})::before {{ content: \"{name}\" }}\n", table.id, place + 1)
    };
    parts.columns.iter().enumerate().skip(1).map(rule).collect()
}

fn body(table: &Table, parts: &Parts) -> String {
    if table.rows.is_empty() {
        return String::new();
    }
    let numeric: Vec<bool> =
        (0..table.columns.len()).map(|index| cell::is_numeric(&table.rows, index)).collect();
    let many = parts.columns.iter().filter(|&&column| numeric[column]).count() > MANY;
    let head: String = parts
        .columns
        .iter()
        .map(|&column| {
            let class = if numeric[column] { " class=\"n\"" } else { "" };
            format!("<th scope=\"col\"{class}>{}", glossary::linked(&table.columns[column]))
        })
        .collect();
    let task: Vec<usize> = (0..table.columns.len())
        .filter(|&c| table.columns[c] == "task" || table.columns[c] == "other task")
        .collect();
    let mut text = String::new();
    let mut previous: Option<Vec<&Cell>> = None;
    for &row in &parts.rows {
        let cells = &table.rows[row];
        let group: Vec<&Cell> = parts.groups.iter().map(|&column| &cells[column]).collect();
        if previous.as_ref() != Some(&group) {
            if previous.is_some() {
                text += "</tbody>\n";
            }
            text += "<tbody>\n";
            if !group.is_empty() {
                text += &heading(table, parts, row, &group);
            }
            previous = Some(group);
        }
        let tasks: Vec<String> = task.iter().map(|&column| cell::text(&cells[column])).collect();
        let of_task = match tasks.is_empty() {
            true => String::new(),
            false => format!(" data-t=\"{}\"", escape(&tasks.join(" "))),
        };
        let class = if is_lost(table, row) { " class=\"lost\"" } else { "" };
        text += &format!("<tr{class}{of_task}>");
        // In HTML the next cell ends a cell and the next row a row, and a header in a column of headers is that of its
        // row: saying so took an eighth of the page.
        for (place, &column) in parts.columns.iter().enumerate() {
            text += if place == 0 { "<th>" } else { "<td>" };
            text += &shown(&cells[column], many);
        }
        text += "\n";
    }
    let label = escape(&format!("{} {}", table.id, table.title));
    // The frame takes the keyboard's focus, so that it can be scrolled without a mouse where it has to be.
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{label}\">\n<table class=\"data numbers{}\">\n<caption>{}</caption>\n\
         <thead><tr>{head}</tr></thead>\n{text}</tbody>\n</table>\n</div>\n",
        if many { " many" } else { "" },
        caption(table, parts, many),
    )
}

/// Whether a row is about models that have lost the facts: the true target is too rare to be known before the edit.
fn is_lost(table: &Table, row: usize) -> bool {
    const KNOWN: f64 = 1e-3;
    let before = table.columns.iter().position(|column| column == "P(true) before");
    before
        .is_some_and(|column| matches!(table.rows[row][column], Cell::Number { value, .. } if value < KNOWN))
}

/// Heading of a group of rows, with the facts that all of its rows share.
fn heading(table: &Table, parts: &Parts, row: usize, group: &[&Cell]) -> String {
    let belongs = |&other: &usize| {
        parts.groups.iter().zip(group).all(|(&column, cell)| table.rows[other][column] == **cell)
    };
    let members: Vec<usize> = parts.rows.iter().copied().filter(belongs).collect();
    let names: Vec<String> = parts
        .groups
        .iter()
        .zip(group)
        .filter(|(_, cell)| !matches!(cell, Cell::Text(text) if text == "-"))
        .map(|(&column, cell)| group_name(&table.columns[column], cell))
        .collect();
    let facts: Vec<String> = parts
        .facts
        .iter()
        .filter(|&&column| {
            members.iter().all(|&member| table.rows[member][column] == table.rows[row][column])
        })
        .map(|&column| {
            format!("{} {}", words(&table.columns[column]), shown(&table.rows[row][column], false))
        })
        .collect();
    let facts =
        if facts.is_empty() { String::new() } else { format!(" <span>{}</span>", facts.join(" · ")) };
    let task = parts.groups.iter().zip(group).find(|(column, _)| table.columns[**column] == "task");
    let task =
        task.map_or_else(String::new, |(_, cell)| format!(" data-t=\"{}\"", escape(&cell::text(cell))));
    format!(
        "<tr class=\"group\"{task}><th colspan=\"{}\" scope=\"rowgroup\">{}{facts}\n",
        parts.columns.len(),
        names.join(" · "),
    )
}

/// The value of a group with a link where the glossary has it, and the column's name where the value needs it.
fn group_name(column: &str, cell: &Cell) -> String {
    let text = cell::text(cell);
    match column {
        "task" => glossary::linked_task(&text),
        "claim" => format!("<a href=\"#claim-{0}\">{0}</a>", escape(&text)),
        _ => words(&text),
    }
}

fn caption(table: &Table, parts: &Parts, many: bool) -> String {
    let mut sentences: Vec<String> = Vec::new();
    let constants: Vec<String> = parts
        .constant
        .iter()
        .map(|&column| {
            let value = shown(&table.rows[parts.rows[0]][column], false);
            format!("{} {value}", glossary::linked(&table.columns[column]))
        })
        .collect();
    if !constants.is_empty() {
        sentences.push(format!("All rows: {}.", constants.join(", ")));
    }
    let (shown_rows, all) = (parts.rows.len(), table.rows.len());
    if shown_rows < all {
        sentences
            .push(format!("{shown_rows} of {} rows; the others are in the CSV.", cell::grouped(all as u64)));
    }
    let left_out: Vec<String> = parts.left_out.iter().map(|&column| words(&table.columns[column])).collect();
    if !left_out.is_empty() {
        sentences.push(format!("Only in the CSV: {}.", left_out.join("; ")));
    }
    if parts.rows.iter().any(|&row| is_lost(table, row)) {
        sentences.push("Grey rows: the facts were lost before the edit, P(true) is below 0.001.".to_owned());
    }
    if many {
        sentences.push("Intervals are in the CSV.".to_owned());
    }
    let id = &table.id;
    sentences
        .push(format!("<a href=\"tables/{id}.csv\">{id}.csv</a>, <a href=\"tables/{id}.md\">{id}.md</a>"));
    sentences.join(" ")
}

/// A cell; what was not measured does not look like a number.
fn shown(cell: &Cell, without_interval: bool) -> String {
    match (cell::parts(cell), cell) {
        (_, Cell::Empty(())) => "<span class=\"none\" title=\"not measured\">–</span>".to_owned(),
        ((main, Some(range)), Cell::Estimate { low, high, .. }) if !without_interval && low < high => {
            format!("{} <small>{}</small>", words(&main), words(&range))
        }
        ((main, _), _) => words(&main),
    }
}

pub(super) fn figure_block(one: &Figure) -> String {
    let (id, title, caption) = (&one.id, words(&one.title), words(&one.caption));
    let label = escape(&one.title);
    let drawing = plot::draw(one).inline(&one.title);
    format!(
        "<figure id=\"figure-{id}\">\n<div class=\"drawing\" tabindex=\"0\" role=\"region\" aria-label=\"{label}\">\n{drawing}</div>\n\
         <figcaption><b>{title}.</b> {caption} <a href=\"figures/{id}.svg\">{id}.svg</a></figcaption>\n</figure>\n"
    )
}
