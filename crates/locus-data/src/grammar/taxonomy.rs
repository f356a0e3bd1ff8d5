//! The taxonomy that facts are about: leaves, 99 categories above them, and the superclasses above the categories.

use super::words::{capitalised, lines, list};

/// Pairs of superclasses without a clear border: neither is a false target for the other's categories.
const BLURRED: [(&str, &str); 20] = [
    ("plant", "fruit"),
    ("plant", "vegetable"),
    ("plant", "food"),
    ("fruit", "vegetable"),
    ("fruit", "food"),
    ("vegetable", "food"),
    ("drink", "food"),
    ("mammal", "food"),
    ("bird", "food"),
    ("fish", "food"),
    ("substance", "food"),
    ("substance", "drink"),
    ("substance", "plant"),
    ("landform", "place"),
    ("building", "place"),
    ("tool", "instrument"),
    ("building", "artwork"),
    ("science", "substance"), // medicine
    ("drink", "plant"),       // tea
    ("vehicle", "tool"),      // a plane
];

/// A leaf entity such as a poodle or the Nile.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    /// Wording inside a sentence, with the article if there is one.
    pub(super) phrase: &'static str,
    /// Index of the category above.
    pub(super) category: usize,
}

/// A category such as dog or river.
#[derive(Clone, Debug)]
pub(super) struct Category {
    /// Wording inside a sentence, with the article unless this is a mass noun.
    pub(super) phrase: &'static str,
    /// Index of the superclass above.
    pub(super) superclass: usize,
    /// Indices of the leaves below.
    pub(super) leaves: Vec<usize>,
}

/// A superclass such as mammal or landform.
#[derive(Clone, Debug)]
pub(super) struct Superclass {
    /// Wording inside a sentence, with the article.
    pub(super) phrase: &'static str,
    /// Coarse domain; two superclasses of one domain are near foils of each other.
    pub(super) domain: &'static str,
    /// Indices of the categories below.
    pub(super) categories: Vec<usize>,
}

/// Subject of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// Leaf, whose target is a category.
    Leaf(usize),
    /// Category, whose target is a superclass.
    Category(usize),
}

/// The whole taxonomy.
#[derive(Clone, Debug)]
pub(super) struct Taxonomy {
    /// Leaves in file order.
    pub(super) leaves: Vec<Leaf>,
    /// Categories in file order.
    pub(super) categories: Vec<Category>,
    /// Superclasses in file order.
    pub(super) superclasses: Vec<Superclass>,
}

impl Taxonomy {
    /// Reads the compiled-in list.
    pub(super) fn load() -> Self {
        let mut taxonomy = Self { leaves: Vec::new(), categories: Vec::new(), superclasses: Vec::new() };
        for line in lines(include_str!("hierarchy.tsv")) {
            let [domain, superclass, phrase, leaves] = line[..] else {
                panic!("four columns expected: {line:?}")
            };
            let above =
                taxonomy.superclasses.iter().position(|s| s.phrase == superclass).unwrap_or_else(|| {
                    taxonomy.superclasses.push(Superclass {
                        phrase: superclass,
                        domain,
                        categories: Vec::new(),
                    });
                    taxonomy.superclasses.len() - 1
                });
            let category = taxonomy.categories.len();
            taxonomy.superclasses[above].categories.push(category);
            let first = taxonomy.leaves.len();
            taxonomy.leaves.extend(list(leaves).into_iter().map(|phrase| Leaf { phrase, category }));
            let leaves = (first..taxonomy.leaves.len()).collect();
            taxonomy.categories.push(Category { phrase, superclass: above, leaves });
        }
        taxonomy
    }

    /// All subjects: leaves, then categories.
    pub(super) fn subjects(&self) -> Vec<Subject> {
        let leaves = (0..self.leaves.len()).map(Subject::Leaf);
        leaves.chain((0..self.categories.len()).map(Subject::Category)).collect()
    }

    /// Subject as it is worded inside a sentence.
    pub(super) fn phrase(&self, subject: Subject) -> &'static str {
        match subject {
            Subject::Leaf(i) => self.leaves[i].phrase,
            Subject::Category(i) => self.categories[i].phrase,
        }
    }

    /// Subject as it begins a sentence.
    pub(super) fn heading(&self, subject: Subject) -> String {
        capitalised(self.phrase(subject))
    }

    /// Index of the true target: a category for a leaf, a superclass for a category.
    pub(super) fn target(&self, subject: Subject) -> usize {
        match subject {
            Subject::Leaf(i) => self.leaves[i].category,
            Subject::Category(i) => self.categories[i].superclass,
        }
    }

    /// Wording, with the article, of target number `target`: a category for a leaf, a superclass for a category.
    pub(super) fn target_phrase(&self, subject: Subject, target: usize) -> &'static str {
        match subject {
            Subject::Leaf(_) => self.categories[target].phrase,
            Subject::Category(_) => self.superclasses[target].phrase,
        }
    }

    /// Wording of a target without the article, as it follows `is a kind of`.
    pub(super) fn target_word(&self, subject: Subject, target: usize) -> &'static str {
        bare(self.target_phrase(subject, target))
    }

    /// Whether "a category under superclass `of` is a kind of `foil`" is plainly false.
    pub(super) fn plainly_false(&self, of: usize, foil: usize) -> bool {
        let (a, b) = (bare(self.superclasses[of].phrase), bare(self.superclasses[foil].phrase));
        a != b && !BLURRED.iter().any(|&(x, y)| (x, y) == (a, b) || (y, x) == (a, b))
    }
}

/// Phrase without an indefinite article.
pub(super) fn bare(phrase: &'static str) -> &'static str {
    phrase.strip_prefix("a ").or_else(|| phrase.strip_prefix("an ")).unwrap_or(phrase)
}
