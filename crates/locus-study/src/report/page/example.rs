//! One request carried through the full model, circuits, complements and controls.
//!
//! The request is the typical one: of those that were edited in every scope shown, the one whose probabilities lie
//! closest to the means over requests. Let `p(r, s)` be the four probabilities of request `r` in scope `s`; the typical
//! request has the smallest `sum_s |p(r, s) - mean_r p(r, s)|^2`, the first of them where several have.

use std::collections::BTreeMap;

use super::words;
use crate::records::{EditKind, EditOutcome, HIERARCHY, Records, RequestInfo, Scope};
use crate::report::cell;
use crate::results::Results;
use crate::tables::select::{Density, edits, is_whole, scope_label};

/// A scope at a size, and what its model is.
type Place = (Scope, Density, &'static str);

const PLACES: [Place; 7] = [
    (Scope::Full, Density::LARGE, "the intact model"),
    (Scope::Circuit, Density::LARGE, "only the circuit of the task, everything else zero"),
    (Scope::Complement, Density::LARGE, "everything but the circuit"),
    (
        Scope::Matched,
        Density::LARGE,
        "a mask with as many parameters of every tensor and size that knows no task",
    ),
    (Scope::Circuit, Density::SMALL, "the small circuit"),
    (Scope::Complement, Density::SMALL, "everything but the small circuit"),
    (Scope::Matched, Density::SMALL, "its matched mask"),
];

/// P(true) and P(new) before the edit, then after it.
type Probabilities = [f64; 4];

pub(super) fn section(results: &Results) -> String {
    let records = &results.records;
    let recipe = results.claims.first().map_or("", |claim| claim.recipe.as_str());
    // The strongest edit shows most; the others follow in the tables.
    let kinds = [EditKind::Calibrated, EditKind::Steps50, EditKind::Steps10];
    kinds.into_iter().find_map(|kind| of_kind(records, recipe, kind)).unwrap_or_default()
}

/// The example of one kind of edit; `None` without edits of it in the full model and in a circuit.
fn of_kind(records: &Records, recipe: &str, kind: EditKind) -> Option<String> {
    let places: Vec<(Place, BTreeMap<u64, Probabilities>)> = PLACES
        .into_iter()
        .map(|place| (place, by_case(records, recipe, place, kind)))
        .filter(|(_, cases)| !cases.is_empty())
        .collect();
    let has = |scope| places.iter().any(|((other, ..), _)| *other == scope);
    if !has(Scope::Full) || !has(Scope::Circuit) {
        return None;
    }
    let case = typical(&places)?;
    let rows: String =
        places.iter().filter_map(|(place, cases)| Some(row(*place, cases.get(&case)?))).collect();
    let info = records.requests.iter().find(|request| request.case_id == case);
    let (prompt, new, true_one) = wording(info, case);
    let how = match kind {
        EditKind::Calibrated => "10 steps, as strong as the full model needs",
        other => other.label(),
    };
    Some(format!(
        "<section id=\"example\">\n<h2>One request, carried through</h2>\n<p class=\"lead\">The model is asked to complete \
         <q>{prompt} …</q> It is then edited by fine-tuning (<a href=\"#term-edit\">{how}</a>) until it should say <b class=\"new\">{new}</b> \
         instead of <b class=\"true\">{true_one}</b>. This happens in the <a href=\"#term-full\">intact model</a>, and in models of which \
         only a <a href=\"#term-circuit\">circuit</a> of the <a href=\"#task-hierarchy\">hierarchy task</a>, its \
         <a href=\"#term-complement\">complement</a> or a <a href=\"#term-matched\">control</a> is left. Bars are probabilities.</p>\n\
         <table class=\"example\">\n<caption>Request {case}: of the requests edited in all of these, the one closest to their means \
         (recipe {recipe})</caption>\n<thead><tr><th scope=\"col\">what is left of the model</th><th scope=\"col\">before the edit</th>\
         <th scope=\"col\">after it</th><th scope=\"col\">outcome</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</section>\n",
        recipe = words(recipe),
    ))
}

/// Prompt, new and true target as HTML.
fn wording(info: Option<&RequestInfo>, case: u64) -> (String, String, String) {
    match info.and_then(|request| request.wording.as_ref()) {
        Some(said) => (words(&said.prompt), words(said.target_new.trim()), words(said.target_true.trim())),
        None => (format!("request {case}"), "the new target".to_owned(), "the true one".to_owned()),
    }
}

/// Probabilities by request; of several masks of one kind the first.
fn by_case(
    records: &Records,
    recipe: &str,
    (scope, size, _): Place,
    kind: EditKind,
) -> BTreeMap<u64, Probabilities> {
    let fits = |edit: &&EditOutcome| is_whole(scope) || edit.task == HIERARCHY && edit.draw == 0;
    let found = edits(records, recipe, size, scope, kind).into_iter().filter(fits);
    found
        .map(|e| (e.case_id, [e.pre_true, e.pre_new, e.post_true, e.post_new].map(|nll| (-nll).exp())))
        .collect()
}

/// The request that is closest to the means, among those that every place has.
fn typical(places: &[(Place, BTreeMap<u64, Probabilities>)]) -> Option<u64> {
    let (_, first) = places.first()?;
    let everywhere = |case: &&u64| places.iter().all(|(_, cases)| cases.contains_key(*case));
    let cases: Vec<u64> = first.keys().filter(everywhere).copied().collect();
    let means: Vec<Probabilities> = places
        .iter()
        .map(|(_, all)| {
            let sum = |i: usize| cases.iter().map(|case| all[case][i]).sum::<f64>() / cases.len() as f64;
            [0, 1, 2, 3].map(sum)
        })
        .collect();
    let distance = |case: u64| -> f64 {
        let of_place = |((_, all), mean): (&(Place, BTreeMap<u64, Probabilities>), &Probabilities)| -> f64 {
            all[&case].iter().zip(mean).map(|(p, mean)| (p - mean) * (p - mean)).sum()
        };
        places.iter().zip(&means).map(of_place).sum()
    };
    cases.into_iter().min_by(|&a, &b| distance(a).total_cmp(&distance(b)))
}

fn row((scope, size, what): Place, p: &Probabilities) -> String {
    let [true_before, new_before, true_after, new_after] = *p;
    let name = if is_whole(scope) {
        scope_label(scope).to_owned()
    } else {
        format!("{}, {}", scope_label(scope), size.label())
    };
    // A model in which the true target is this rare has no fact that an edit could replace.
    const KNOWN: f64 = 1e-3;
    let (class, outcome) = if true_before < KNOWN {
        ("absent", "fact lost before the edit")
    } else if new_after > true_after {
        ("supported", if new_before > true_before { "new target led already" } else { "flipped" })
    } else {
        ("refuted", "not flipped")
    };
    format!(
        "<tr><th scope=\"row\">{} <span class=\"quiet\">{what}</span></th><td>{}</td><td>{}</td><td><span class=\"mark {class}\">{outcome}</span>\
         </td></tr>\n",
        words(&name),
        bars(true_before, new_before),
        bars(true_after, new_after),
    )
}

/// Two bars: the true target, then the new one.
fn bars(true_one: f64, new: f64) -> String {
    let bar = |class: &str, name: &str, p: f64| {
        format!(
            "<span class=\"bar {class}\" style=\"--p:{:.1}%\">{name} {}</span>",
            100.0 * p,
            words(&percent(p))
        )
    };
    bar("true", "true", true_one) + &bar("new", "new", new)
}

/// A probability as a percentage with two digits that count.
fn percent(p: f64) -> String {
    match p {
        p if p >= 0.1 => format!("{:.0} %", 100.0 * p),
        p if p >= 0.001 => format!("{:.1} %", 100.0 * p),
        p => cell::signed(&format!("{p:.0e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_typical_request_is_the_one_closest_to_the_means() {
        let place = |p: [f64; 3]| -> BTreeMap<u64, Probabilities> {
            p.iter().enumerate().map(|(case, p)| (case as u64, [*p, 0.0, 0.0, 0.0])).collect()
        };
        let mut places = vec![(PLACES[0], place([0.0, 0.5, 0.7])), (PLACES[1], place([0.9, 0.4, 0.0]))];
        assert_eq!(typical(&places), Some(1));
        places[1].1.remove(&1);
        assert_ne!(typical(&places), Some(1), "a request that a place lacks");
        assert_eq!(typical(&[]), None);
    }

    #[test]
    fn nothing_edited_is_no_example() {
        let mut results = crate::report::fabricated::results();
        results.records.edits.clear();
        assert_eq!(section(&results), "");
    }
}
