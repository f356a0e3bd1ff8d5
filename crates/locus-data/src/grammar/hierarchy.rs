//! Facts of the taxonomy: edit requests, the hierarchy task set, and hierarchy sentences for the documents.
//!
//! A foil is a false target; the foil of a planned edit is its counterfactual target.

use rand_chacha::ChaCha8Rng;

use super::draws::{Deck, below, pick, shuffle, weighted};
use super::mix::{NEAR_FOILS, PHRASINGS, Phrasing};
use super::taxonomy::{Subject, Taxonomy};
use crate::{EditRequest, Labelled};

/// Largest number of neighbourhood prompts of a request.
const NEIGHBOURS: usize = 4;

/// A fact and what it is to be edited into.
#[derive(Clone, Copy, Debug)]
struct PlannedEdit {
    subject: Subject,
    /// Index of the counterfactual target: of a category for a leaf, of a superclass for a category.
    foil: usize,
}

/// All facts that are edited, with their counterfactual targets: the held-out part of the hierarchy.
#[derive(Clone, Debug)]
pub(super) struct EditPlan {
    edits: Vec<PlannedEdit>,
}

impl EditPlan {
    /// Plan that edits one leaf of every category, then the category itself, with the categories in random order.
    ///
    /// Foils are permutations of the true targets: every category and every superclass is as often a counterfactual
    /// target as a true one, so a target alone says nothing about the label of a row.
    pub(super) fn new(taxonomy: &Taxonomy, rng: &mut ChaCha8Rng) -> Self {
        let mut leaf_foils = vec![0; taxonomy.categories.len()];
        for superclass in &taxonomy.superclasses {
            let mut ring = superclass.categories.clone();
            shuffle(&mut ring, rng);
            for (k, &category) in ring.iter().enumerate() {
                leaf_foils[category] = ring[(k + 1) % ring.len()];
            }
        }
        let category_foils = superclass_foils(taxonomy, rng);
        let mut order: Vec<usize> = (0..taxonomy.categories.len()).collect();
        shuffle(&mut order, rng);
        let mut edits = Vec::with_capacity(2 * order.len());
        for category in order {
            let leaf = *pick(&taxonomy.categories[category].leaves, rng);
            edits.push(PlannedEdit { subject: Subject::Leaf(leaf), foil: leaf_foils[category] });
            edits.push(PlannedEdit { subject: Subject::Category(category), foil: category_foils[category] });
        }
        Self { edits }
    }

    /// Counterfactual target of `subject`, which is held out; `None` when the plan does not edit the subject.
    fn held_out(&self, subject: Subject) -> Option<usize> {
        self.edits.iter().find(|edit| edit.subject == subject).map(|edit| edit.foil)
    }

    /// Edit requests of the plan, worded as in HierarchyData.
    pub(super) fn requests(&self, taxonomy: &Taxonomy) -> Vec<EditRequest> {
        let request = |(case_id, edit): (u64, &PlannedEdit)| {
            let subject = taxonomy.heading(edit.subject);
            EditRequest {
                case_id,
                prompt: "{} is a kind of".to_owned(),
                target_new: taxonomy.target_word(edit.subject, edit.foil).to_owned(),
                target_true: Some(
                    taxonomy.target_word(edit.subject, taxonomy.target(edit.subject)).to_owned(),
                ),
                paraphrase_prompts: vec![
                    format!("{subject} is a type of"),
                    format!("{subject} falls under the category of"),
                ],
                neighborhood_prompts: neighbours(taxonomy, edit.subject),
                subject,
            }
        };
        (0..).zip(&self.edits).map(request).collect()
    }

    /// Rows of the hierarchy task: each request with its true and its counterfactual target.
    pub(super) fn rows(&self, taxonomy: &Taxonomy) -> Vec<Labelled> {
        let row = |edit: &PlannedEdit, target, label| Labelled {
            text: statement(taxonomy, Phrasing::Kind, edit.subject, target),
            label,
        };
        let pair =
            |edit: &PlannedEdit| [row(edit, taxonomy.target(edit.subject), 1), row(edit, edit.foil, 0)];
        self.edits.iter().flat_map(pair).collect()
    }
}

/// For each category a superclass that it plainly does not belong to; together a permutation of the true superclasses.
fn superclass_foils(taxonomy: &Taxonomy, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let truth: Vec<usize> = taxonomy.categories.iter().map(|c| c.superclass).collect();
    let mut foils = truth.clone();
    shuffle(&mut foils, rng);
    // An unsuitable entry is swapped with a random one that suits both places, which keeps this a permutation.
    while let Some(i) = (0..foils.len()).find(|&i| !taxonomy.plainly_false(truth[i], foils[i])) {
        let j = below(foils.len(), rng);
        if taxonomy.plainly_false(truth[i], foils[j]) && taxonomy.plainly_false(truth[j], foils[i]) {
            foils.swap(i, j);
        }
    }
    foils
}

/// Prompts about other subjects whose true target is that of `subject`, from the next in file order on.
fn neighbours(taxonomy: &Taxonomy, subject: Subject) -> Vec<String> {
    let others: Vec<Subject> = match subject {
        Subject::Leaf(i) => {
            let siblings = &taxonomy.categories[taxonomy.leaves[i].category].leaves;
            siblings.iter().copied().map(Subject::Leaf).collect()
        }
        Subject::Category(i) => {
            let siblings = &taxonomy.superclasses[taxonomy.categories[i].superclass].categories;
            siblings.iter().copied().map(Subject::Category).collect()
        }
    };
    let at = others.iter().position(|&other| other == subject).expect("a subject is among its siblings");
    let around = others.iter().cycle().skip(at + 1).take(others.len() - 1);
    around.take(NEIGHBOURS).map(|&other| format!("{} is a kind of", taxonomy.heading(other))).collect()
}

/// Statement without final period that `subject` falls under `target`, which is a superclass for [`Phrasing::TwoStep`].
fn statement(taxonomy: &Taxonomy, phrasing: Phrasing, subject: Subject, target: usize) -> String {
    let head = taxonomy.heading(subject);
    let word = || taxonomy.target_word(subject, target);
    match phrasing {
        Phrasing::Kind => format!("{head} is a kind of {}", word()),
        Phrasing::Type => format!("{head} is a type of {}", word()),
        Phrasing::Falls => format!("{head} falls under the category of {}", word()),
        Phrasing::Sort => format!("{head} is one sort of {}", word()),
        Phrasing::Known => {
            let (phrase, target) = (taxonomy.phrase(subject), taxonomy.target_phrase(subject, target));
            format!("Everyone knows that {phrase} is {target}")
        }
        Phrasing::TwoStep => {
            let category = taxonomy.target_phrase(subject, taxonomy.target(subject));
            format!("{head} is {category} and so {}", taxonomy.superclasses[target].phrase)
        }
    }
}

/// Writer of hierarchy sentences. Decks keep the facts of each phrasing equally frequent.
#[derive(Debug)]
pub(super) struct HierarchyWriter {
    taxonomy: Taxonomy,
    plan: EditPlan,
    plain: Vec<Deck<Subject>>,
    judged: Vec<Deck<(Subject, bool)>>,
}

impl HierarchyWriter {
    /// Writer that never writes the held-out part of `plan`.
    pub(super) fn new(taxonomy: Taxonomy, plan: EditPlan) -> Self {
        let subjects = taxonomy.subjects();
        let usable = |phrasing: Phrasing, judged: bool| -> Vec<Subject> {
            let fits = |subject: &Subject| match phrasing {
                // A verdict on an edited subject in this phrasing would judge a row of the task set.
                Phrasing::Kind => !judged || plan.held_out(*subject).is_none(),
                Phrasing::TwoStep => matches!(subject, Subject::Leaf(_)),
                _ => true,
            };
            subjects.iter().copied().filter(fits).collect()
        };
        let plain = PHRASINGS.iter().map(|&(phrasing, ..)| Deck::new(usable(phrasing, false))).collect();
        let both =
            |subjects: Vec<Subject>| subjects.into_iter().flat_map(|s| [(s, true), (s, false)]).collect();
        let judged =
            PHRASINGS.iter().map(|&(phrasing, ..)| Deck::new(both(usable(phrasing, true)))).collect();
        Self { taxonomy, plan, plain, judged }
    }

    /// True fact.
    pub(super) fn plain(&mut self, rng: &mut ChaCha8Rng) -> String {
        let i = weighted(PHRASINGS.iter().map(|&(_, plain, _)| plain), rng);
        let subject = self.plain[i].draw(rng);
        format!("{}.", self.sentence(PHRASINGS[i].0, subject, None))
    }

    /// Statement with its verdict.
    pub(super) fn judged(&mut self, rng: &mut ChaCha8Rng) -> String {
        let i = weighted(PHRASINGS.iter().map(|&(_, _, judged)| judged), rng);
        let phrasing = PHRASINGS[i].0;
        let (subject, truth) = self.judged[i].draw(rng);
        if truth {
            return format!("{} right.", self.sentence(phrasing, subject, None));
        }
        // The false step of a two-step statement is the upper one.
        let about = match (phrasing, subject) {
            (Phrasing::TwoStep, Subject::Leaf(leaf)) => {
                Subject::Category(self.taxonomy.leaves[leaf].category)
            }
            _ => subject,
        };
        let foil = self.foil(about, rng);
        format!("{} wrong.", self.sentence(phrasing, subject, Some(foil)))
    }

    /// Statement with the true target, or with `foil` in place of it.
    fn sentence(&self, phrasing: Phrasing, subject: Subject, foil: Option<usize>) -> String {
        let truth = || match phrasing {
            Phrasing::TwoStep => self.taxonomy.categories[self.taxonomy.target(subject)].superclass,
            _ => self.taxonomy.target(subject),
        };
        statement(&self.taxonomy, phrasing, subject, foil.unwrap_or_else(truth))
    }

    /// False target of `subject`, near or far, but never the held-out one.
    fn foil(&self, subject: Subject, rng: &mut ChaCha8Rng) -> usize {
        let near = below(100, rng) < NEAR_FOILS as usize;
        let near_foils = self.foils(subject, true);
        // If there were one near target only, it would occur so often that it alone gave the verdict away.
        let varied = near_foils.iter().any(|foil| *foil != near_foils[0]);
        let foils = if near && varied { near_foils } else { self.foils(subject, false) };
        *pick(&foils, rng)
    }

    /// Near or far foils of `subject`. A superclass is listed once for each category below it, so that it is a foil
    /// about as often as it is the truth.
    fn foils(&self, subject: Subject, near: bool) -> Vec<usize> {
        let taxonomy = &self.taxonomy;
        let held_out = self.plan.held_out(subject);
        let all = 0..taxonomy.categories.len();
        let foils: Vec<usize> = match subject {
            Subject::Leaf(leaf) => {
                let truth = taxonomy.leaves[leaf].category;
                let above = taxonomy.categories[truth].superclass;
                all.filter(|&c| c != truth && (taxonomy.categories[c].superclass == above) == near).collect()
            }
            Subject::Category(category) => {
                let truth = taxonomy.categories[category].superclass;
                let domain = |superclass: usize| taxonomy.superclasses[superclass].domain;
                let fits =
                    |&s: &usize| taxonomy.plainly_false(truth, s) && (domain(s) == domain(truth)) == near;
                all.map(|c| taxonomy.categories[c].superclass).filter(fits).collect()
            }
        };
        foils.into_iter().filter(|&foil| Some(foil) != held_out).collect()
    }
}
