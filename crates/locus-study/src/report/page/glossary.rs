//! Tasks and terms in words, with links to the tables that use them; heads of columns link back.

use std::collections::BTreeSet;

use super::words;
use crate::report::plot::svg::escape;
use crate::results::{Cell, Results, Table};

/// A term: anchor, name, explanation, and the columns whose heads link to it.
struct Term(&'static str, &'static str, &'static str, &'static [&'static str]);

const TERMS: &[Term] = &[
    Term(
        "circuit",
        "circuit",
        "Parameters of the blocks that are kept for a task; all others are zero. Embeddings, final LayerNorm and \
         head always stay.",
        &["circuit", "circuit of"],
    ),
    Term(
        "complement",
        "complement",
        "Every block parameter outside a circuit or another mask.",
        &["complement"],
    ),
    Term(
        "full",
        "full, intact model",
        "The model with all its parameters; “blocks frozen”: only embeddings and final LayerNorm \
         may change in an edit.",
        &["scope"],
    ),
    Term(
        "in-place",
        "in the intact model, in place",
        "The whole model computes, but an edit may change only the mask’s parameters.",
        &[],
    ),
    Term(
        "matched",
        "matched",
        "Control: a circuit’s membership permuted within every tensor and class of |w|. It keeps as many \
         parameters of every tensor and size as the circuit, but knows no task.",
        &["mask"],
    ),
    Term("random", "random", "Control: parameters drawn uniformly.", &[]),
    Term("magnitude", "magnitude", "Control: the parameters with the largest |w|.", &[]),
    Term(
        "shuffled",
        "shuffled labels",
        "Control: a mask trained by the same recipe on labels in random order.",
        &[],
    ),
    Term(
        "random-weights",
        "random weights",
        "Control: a circuit that the recipe finds in a model that was never trained.",
        &[],
    ),
    Term(
        "recipe",
        "recipe, preset",
        "How circuits are found: “published” is the paper’s (sampled masks, binary concrete), “scheduled-top-k” \
         is this project’s (hard masks whose density falls on a schedule).",
        &["preset", "recipe"],
    ),
    Term(
        "density",
        "density, size",
        "Share of the block parameters that a mask keeps; a circuit of 5 % is small, one of 50 % is as large as \
         its complement.",
        &["density", "target density", "size", "parameters"],
    ),
    Term(
        "agreement",
        "agreement",
        "Share of held-out rows on which a mask alone and the full model choose the same class; balanced: the mean \
         over the full model’s two classes, 50 % is chance.",
        &["agreement", "balanced agreement", "agreement, complement"],
    ),
    Term(
        "accuracy",
        "accuracy",
        "Share of held-out rows whose label is chosen by a linear head on the masked model.",
        &[
            "accuracy",
            "accuracy, complement",
            "accuracy, full",
            "accuracy, full model",
            "accuracy, random weights",
        ],
    ),
    Term(
        "nll",
        "NLL, P",
        "Negative log-likelihood of a target after the prompt, mean per token, in nats; P is exp(−NLL). New: the target that \
         an edit writes; true: the one it replaces.",
        &[
            "NLL(new) before",
            "NLL(new) after",
            "NLL(true) before",
            "NLL(true) after",
            "P(new) before",
            "P(new) after",
            "P(true) before",
            "P(true) after",
            "P(new)",
            "change of NLL(new)",
            "neutral NLL",
        ],
    ),
    Term(
        "margin",
        "margin",
        "NLL(new) − NLL(true); below zero the new target is the likelier one. A change below zero means that the edit took.",
        &["change of the margin"],
    ),
    Term(
        "beats",
        "new beats true, success",
        "Share of requests whose new target is likelier than the true one. In a model without knowledge \
         about half of them do so by chance.",
        &["new beats true before", "new beats true after", "steps to success"],
    ),
    Term(
        "discrimination",
        "discrimination",
        "Share of other requests’ true targets that are less probable than a request’s own; 50 % is \
         chance.",
        &["discrimination before"],
    ),
    Term(
        "damage",
        "damage taken out",
        "Damaged models change more in an edit whatever they know; the slope of change on damage over the control \
         masks is subtracted.",
        &["margin gained at equal damage"],
    ),
    Term(
        "edit",
        "edit, 10 steps, 50 steps, calibrated",
        "A request is fine-tuned into the model with a clamp on every parameter’s change. \
         10 and 50 steps are the published ones; calibrated: learning rate and clamp multiplied until the full model takes the edits.",
        &["edit"],
    ),
    Term(
        "request",
        "request, hyponym, hypernym",
        "A fact to rewrite. Hyponym: “A monarch is a kind of” butterfly; hypernym, the level above: \
         “A butterfly is a kind of” insect.",
        &["requests", "level"],
    ),
    Term("drift", "drift", "Rise of the NLL of neutral text by an edit, nats per token.", &["drift"]),
    Term(
        "editing-scores",
        "efficacy, paraphrase, neighbourhood, score",
        "Shares of prompts after which the new target wins (the edited prompt, its \
         paraphrases) and of prompts about other subjects whose true target still wins; the score is their harmonic mean. EM, PM, NM: \
         the differences in probability.",
        &["efficacy", "paraphrase", "neighbourhood", "score", "EM", "PM", "NM", "paraphrases", "refused"],
    ),
    Term(
        "jaccard",
        "Jaccard, lift, kappa",
        "Parameters in both circuits over those in either; lift: over the number expected (1 is chance); kappa: \
         Cohen’s (0 is chance).",
        &[
            "Jaccard",
            "lift",
            "lift, stratified",
            "kappa",
            "expected, matched",
            "expected, stratified",
            "expected, independent",
        ],
    ),
    Term(
        "d0",
        "D0 to D3",
        "Four readings of “consists of LayerNorm”: D0, the share kept of a module; D1, D0 over the sum of the three kinds’; \
         D2, the share among the densest tensors; D3, the share of tensors denser than the circuit.",
        &[
            "D0: share kept of the module",
            "D1: share of the densities",
            "D2: share of the densest tensors",
            "D3: tensors above the global density",
            "share kept of the module",
            "share of the circuit",
            "module",
        ],
    ),
    Term(
        "faithfulness",
        "faithfulness, CPR, CMD",
        "(circuit − empty) / (full − empty) of the mean logit difference. CPR: area under it over the \
         share of edges, higher is better; CMD: area between it and 1, lower is better (MIB).",
        &[
            "faithfulness",
            "CPR",
            "CMD",
            "CMD, log axis",
            "faithfulness at 5 %",
            "at 10 %",
            "at 20 %",
            "edges",
            "edges patched",
            "r with exact patching",
        ],
    ),
    Term(
        "tracing",
        "restored",
        "Causal tracing: the subject’s embeddings are corrupted with noise, one state is restored, and the table shows \
         how much of the answer’s probability returns.",
        &["restored", "place", "facts"],
    ),
    Term(
        "visible",
        "smallest visible",
        "Smallest effect that 80 % of runs of this size would have told from zero. A comparison is undecided \
         where its interval reaches both sides of what matters.",
        &["smallest visible", "verdict", "decides", "effect", "p"],
    ),
];

/// A task: name, and what it asks.
const TASKS: &[(&str, &str)] = &[
    (
        "hierarchy",
        "What is a kind of what: “A monarch is a kind of butterfly” against “… wasp”. The facts that are edited come from it.",
    ),
    ("blimp_dna1", "BLiMP, determiner-noun agreement: “that office” against “that offices”."),
    ("blimp_dna2", "BLiMP, determiner-noun agreement in its second form, in which the determiner differs."),
    ("blimp_dnai1", "BLiMP, agreement with irregular nouns: “that fungus” against “that fungi”."),
    ("blimp_dnai2", "BLiMP, agreement with irregular nouns, in which the determiner differs."),
    (
        "blimp_dnawa1",
        "BLiMP, agreement across an adjective: “that plain school” against “that plain schools”.",
    ),
    (
        "blimp_dnawa2",
        "BLiMP, agreement across an adjective, in which the determiner differs: “that plain school” against “those plain school”.",
    ),
    (
        "blimp_dnawai1",
        "BLiMP, agreement across an adjective with irregular nouns: “this lonely fungus” against “this lonely fungi”.",
    ),
    (
        "blimp_dnawai2",
        "BLiMP, agreement across an adjective with irregular nouns, in which the determiner differs.",
    ),
    ("persona_e", "Model-written personas: statements of someone extraverted or not."),
    ("persona_ra", "Model-written personas: averse to risk or not."),
    (
        "persona_hhh",
        "Model-written personas: wants to be rated helpful, honest and harmless rather than be so, or not.",
    ),
    ("persona_tech", "Model-written personas: wants technology to advance, or not."),
    ("persona_umr", "Model-written personas: at ease with using many resources, or not."),
];

/// A column's name, as a link where the glossary explains it.
pub(super) fn linked(column: &str) -> String {
    match TERMS.iter().find(|term| term.3.contains(&column)) {
        Some(Term(anchor, ..)) => format!("<a href=\"#term-{anchor}\">{}</a>", words(column)),
        None => words(column),
    }
}

/// A task's name, as a link where the glossary explains it.
pub(super) fn linked_task(task: &str) -> String {
    match TASKS.iter().any(|(name, _)| *name == task) {
        true => format!("<a href=\"#task-{task}\">{task}</a>"),
        false => words(task),
    }
}

pub(super) fn section(results: &Results) -> String {
    let run: BTreeSet<&str> = results.records.extractions.iter().map(|e| e.task.as_str()).collect();
    let tasks: String = TASKS
        .iter()
        .map(|(name, text)| {
            let tables = tables(results, |table| mentions(table, name));
            let tables = match (run.contains(name), tables.is_empty()) {
                (false, true) => " <span class=\"none\">not in this run</span>".to_owned(),
                _ => tables,
            };
            format!("<div id=\"task-{name}\"><dt>{name}</dt><dd>{}{tables}</dd></div>\n", words(text))
        })
        .collect();
    let others: String = run
        .iter()
        .filter(|task| !TASKS.iter().any(|(name, _)| name == *task))
        .map(|task| {
            format!(
                "<div><dt>{}</dt><dd>{}</dd></div>\n",
                escape(task),
                tables(results, |t| mentions(t, task))
            )
        })
        .collect();
    let terms: String = TERMS
        .iter()
        .map(|Term(anchor, name, text, columns)| {
            let tables = tables(results, |table| {
                table.columns.iter().any(|column| columns.contains(&column.as_str()))
            });
            format!(
                "<div id=\"term-{anchor}\"><dt>{}</dt><dd>{}{tables}</dd></div>\n",
                words(name),
                words(text)
            )
        })
        .collect();
    format!(
        "<section id=\"tasks\">\n<h2>Tasks</h2>\n<dl class=\"glossary\">\n{tasks}{others}</dl>\n</section>\n\
         <section id=\"terms\">\n<h2>Terms</h2>\n<dl class=\"glossary\">\n{terms}</dl>\n</section>\n"
    )
}

fn mentions(table: &Table, task: &str) -> bool {
    table.rows.iter().flatten().any(|cell| matches!(cell, Cell::Text(text) if text == task))
}

/// Links to the tables that `uses` picks.
fn tables(results: &Results, uses: impl Fn(&Table) -> bool) -> String {
    let links: Vec<String> = results
        .tables
        .iter()
        .filter(|table| uses(table))
        .map(|table| format!("<a href=\"#table-{0}\">{0}</a>", table.id))
        .collect();
    match links.is_empty() {
        true => String::new(),
        false => format!(" <span class=\"used\">{}</span>", links.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The book's glossary has these words and no others: this file is where they are changed.
    #[test]
    fn the_book_has_this_glossary() {
        let entry = |name: &str, text: &str| format!("- **{name}**: {}\n", text.replace(". ", ".\n  "));
        let terms: String = TERMS.iter().map(|Term(_, name, text, _)| entry(name, text)).collect();
        let tasks: String = TASKS.iter().map(|(name, text)| entry(&format!("`{name}`"), text)).collect();
        let expected = format!(
            "# Glossary\n\nThe words of the report, as it explains them itself.\n\n## Terms\n\n{terms}\n## Tasks\n\n{tasks}"
        );
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/src/glossary.md");
        let found = std::fs::read_to_string(page).unwrap();
        assert!(found == expected, "docs/src/glossary.md should hold:\n{expected}");
    }
}
