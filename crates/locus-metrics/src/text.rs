//! Generated text: the words that its entropy is taken over, and its likeness to reference texts.
//!
//! Consistency (RS; Meng et al. 2022, arXiv 2202.05262, section 3.3) is the cosine of two unigram tf-idf vectors: that
//! of the texts an edited model generates about a subject, and that of texts about things of which the new target is
//! true. Terms, weights and norm are the defaults of scikit-learn's `TfidfVectorizer`, which ROME's code uses: terms are
//! runs of at least two letters, digits or underscores in lower case, `tf` is the count of a term, and over `n` texts of
//! which `df` have it `idf = ln((1 + n) / (1 + df)) + 1`.

use std::collections::{BTreeMap, BTreeSet};

/// Words and punctuation marks of a text, in order: runs of letters, digits, apostrophes and hyphens, and every other
/// character that is no white space alone. [`ngram_entropy`](crate::editing::ngram_entropy) of them is GE; ROME's code
/// takes the words of NLTK, which also splits "don't" into two.
///
/// ```
/// let words = locus_metrics::text::words("It isn't (as they say) well-known.");
/// assert_eq!(words, ["It", "isn't", "(", "as", "they", "say", ")", "well-known", "."]);
/// ```
pub fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut begun = None;
    for (at, c) in text.char_indices() {
        if c.is_alphanumeric() || c == '\'' || c == '-' {
            begun.get_or_insert(at);
            continue;
        }
        if let Some(start) = begun.take() {
            words.push(&text[start..at]);
        }
        if !c.is_whitespace() {
            words.push(&text[at..at + c.len_utf8()]);
        }
    }
    words.extend(begun.map(|start| &text[start..]));
    words
}

/// Weights of terms, fitted on a collection of texts.
#[derive(Clone, Debug, PartialEq)]
pub struct TfIdf {
    idf: BTreeMap<String, f64>,
}

impl TfIdf {
    /// The weights of the terms that occur in some texts; other terms do not count.
    ///
    /// ```
    /// use locus_metrics::text::TfIdf;
    ///
    /// let texts = ["Paris is in France.", "Rome is in Italy."];
    /// let tf_idf = TfIdf::fit(texts);
    /// assert!((tf_idf.cosine(texts[0], texts[0]).unwrap() - 1.0).abs() < 1e-12);
    /// assert_eq!(tf_idf.cosine(texts[0], "Oslo"), None); // no known term
    /// ```
    pub fn fit<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Self {
        let mut frequency: BTreeMap<String, usize> = BTreeMap::new();
        let mut n = 0usize;
        for text in texts {
            n += 1;
            for term in terms(text.as_ref()).into_iter().collect::<BTreeSet<_>>() {
                *frequency.entry(term).or_default() += 1;
            }
        }
        let idf = |df: usize| ((1 + n) as f64 / (1 + df) as f64).ln() + 1.0;
        TfIdf { idf: frequency.into_iter().map(|(term, df)| (term, idf(df))).collect() }
    }

    /// Cosine of the vectors of two texts, in [0, 1]; `None` when one of them has no known term.
    pub fn cosine(&self, a: &str, b: &str) -> Option<f64> {
        let (a, b) = (self.vector(a), self.vector(b));
        let norm = |vector: &BTreeMap<String, f64>| vector.values().map(|x| x * x).sum::<f64>().sqrt();
        let product: f64 = a.iter().filter_map(|(term, x)| Some(x * b.get(term)?)).sum();
        let norms = norm(&a) * norm(&b);
        (norms > 0.0).then(|| product / norms)
    }

    fn vector(&self, text: &str) -> BTreeMap<String, f64> {
        let mut vector = BTreeMap::new();
        for term in terms(text) {
            if let Some(idf) = self.idf.get(&term) {
                *vector.entry(term).or_insert(0.0) += idf;
            }
        }
        vector
    }
}

/// Terms of a text, in order.
fn terms(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let runs = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    runs.filter(|term| term.chars().nth(1).is_some()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cosines_by_hand() {
        // idf: "red" in both texts of two: ln(3/3) + 1 = 1; "fox" and "hen" in one: ln(3/2) + 1.
        let tf_idf = TfIdf::fit(["A red fox", "the RED hen, a red hen"]);
        let rare = 1.5f64.ln() + 1.0;
        let expected = 2.0 / ((1.0 + rare * rare).sqrt() * (4.0 + 4.0 * rare * rare).sqrt());
        let cosine = tf_idf.cosine("red fox", "red hen red hen unknown").unwrap();
        assert!((cosine - expected).abs() < 1e-15, "{cosine}");
        assert_eq!(tf_idf.cosine("fox", "hen"), Some(0.0));
        assert_eq!((tf_idf.cosine("", "hen"), tf_idf.cosine("a", "hen")), (None, None));
    }

    #[test]
    fn words_by_hand() {
        assert_eq!(words("a  b,c\n"), ["a", "b", ",", "c"]);
        assert_eq!(words("\u{201c}\u{c9}t\u{e9}\u{201d}"), ["\u{201c}", "\u{c9}t\u{e9}", "\u{201d}"]);
        assert!(words(" \t").is_empty());
    }

    proptest! {
        #[test]
        fn words_lose_nothing_but_white_space(text in "\\PC{0,40}") {
            let kept: String = text.chars().filter(|c| !c.is_whitespace()).collect();
            prop_assert_eq!(words(&text).concat(), kept);
        }

        #[test]
        fn cosines_are_symmetric_and_bounded(a in "([a-d]{2} ){1,9}", b in "([a-d]{2} ){1,9}") {
            let tf_idf = TfIdf::fit([&a, &b]);
            let cosine = tf_idf.cosine(&a, &b).unwrap();
            prop_assert!((cosine - tf_idf.cosine(&b, &a).unwrap()).abs() < 1e-12);
            prop_assert!((0.0..=1.0 + 1e-12).contains(&cosine));
            prop_assert!((tf_idf.cosine(&a, &a).unwrap() - 1.0).abs() < 1e-12);
        }
    }
}
