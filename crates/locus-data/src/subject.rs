//! Where a subject stands in a prompt.

use std::ops::Range;

use unicode_normalization::char::{canonical_combining_class, decompose_canonical, is_combining_mark};

/// Bytes of `prompt` that hold `subject`: its first occurrence as whole words, spaces around it aside; `None` when there
/// is none.
///
/// The first occurrence is the one that ROME's code takes. A subject does not begin or end inside a word: "Cat" is not
/// found in "Catalan". In scripts without spaces between words, and after the endings of Korean ones, every character
/// may begin a word. Letters are compared as characters, however they are encoded: a letter with an accent equals the
/// letter followed by the accent (NFC and NFD).
///
/// ```
/// use locus_data::find_subject;
///
/// assert_eq!(find_subject("The Catalan Cat is", "Cat"), Some(12..15));
/// assert_eq!(find_subject("Catalan is", "Cat"), None);
/// assert_eq!(find_subject("Jose\u{301}'s home", " Jos\u{e9} "), Some(0..6));
/// ```
pub fn find_subject(prompt: &str, subject: &str) -> Option<Range<usize>> {
    let wanted: Vec<char> = decomposed(subject.trim()).into_iter().map(|part| part.letter).collect();
    let parts = decomposed(prompt);
    if wanted.is_empty() {
        return None;
    }
    parts.windows(wanted.len()).enumerate().find_map(|(first, window)| {
        if window.iter().zip(&wanted).any(|(part, letter)| part.letter != *letter) {
            return None;
        }
        let start = window.iter().map(|part| part.source.start).min()?;
        let end = window.iter().map(|part| part.source.end).max()?;
        // The window has all parts of its characters.
        let outside = parts[..first].iter().chain(&parts[first + window.len()..]);
        let cut = outside.clone().any(|part| part.source.start < end && part.source.end > start);
        (!cut && is_whole(prompt, start..end)).then_some(start..end)
    })
}

/// A character of the canonical decomposition (NFD), and the bytes of the character that it is a part of.
struct Part {
    letter: char,
    source: Range<usize>,
}

/// The canonical decomposition of a text, accents in canonical order.
fn decomposed(text: &str) -> Vec<Part> {
    let mut parts = Vec::with_capacity(text.len());
    for (start, c) in text.char_indices() {
        let source = start..start + c.len_utf8();
        decompose_canonical(c, |letter| parts.push(Part { letter, source: source.clone() }));
    }
    let class = |part: &Part| canonical_combining_class(part.letter);
    for accents in parts.chunk_by_mut(|a, b| class(a) != 0 && class(b) != 0) {
        accents.sort_by_key(class);
    }
    parts
}

/// Whether a part of a text begins and ends where words may.
fn is_whole(text: &str, part: Range<usize>) -> bool {
    let joined = |a: Option<char>, b: Option<char>| a.zip(b).is_some_and(|(a, b)| is_joined(a, b));
    let (before, own, after) = (&text[..part.start], &text[part.clone()], &text[part.end..]);
    !joined(before.chars().next_back(), own.chars().next())
        && !joined(own.chars().next_back(), after.chars().next())
}

/// Whether two neighbours are of one word: letters or digits, or a character and its accent.
fn is_joined(a: char, b: char) -> bool {
    let in_word = |c: char| (c.is_alphanumeric() || is_combining_mark(c)) && !is_unspaced(c);
    is_combining_mark(b) || (in_word(a) && in_word(b))
}

/// Whether a character is of a script that writes words without spaces between them, or of Korean, whose particles
/// follow a name without one.
fn is_unspaced(c: char) -> bool {
    matches!(u32::from(c),
        0x0e00..=0x0fff // Thai, Lao, Tibetan
        | 0x1000..=0x109f | 0x1100..=0x11ff | 0x1780..=0x17ff // Burmese, Korean letters, Khmer
        | 0x2e80..=0xa4cf | 0xa960..=0xa97f | 0xac00..=0xd7ff // Chinese, Japanese, Yi, Korean
        | 0xf900..=0xfaff | 0xff66..=0xffdc | 0x1b000..=0x1b16f | 0x20000..=0x3ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'a>(prompt: &'a str, subject: &str) -> Option<(usize, &'a str)> {
        find_subject(prompt, subject).map(|place| (place.start, &prompt[place]))
    }

    #[test]
    fn subjects_are_whole_words() {
        assert_eq!(found("Anna's home, said Anna, is in", "Anna"), Some((0, "Anna")));
        assert_eq!(found("Hannah met Ann", "Ann"), Some((11, "Ann")));
        assert_eq!(found("Catalan is spoken in", "Cat"), None);
        assert_eq!(found("The concat of", "Cat"), None);
        assert_eq!(found("1984 and 84", "84"), Some((9, "84")));
        assert_eq!(
            found("Who is Partick Thistle F.C.?", "Partick Thistle F.C."),
            Some((7, "Partick Thistle F.C."))
        );
        assert_eq!(found("x", "longer than the prompt"), None);
        assert_eq!(found("anything", " "), None);
        assert_eq!(found("", ""), None);
    }

    #[test]
    fn encodings_of_a_letter_are_one() {
        let (nfc, nfd) = ("\u{c1}d\u{e1}m", "A\u{301}da\u{301}m");
        for prompt in [nfc, nfd] {
            for subject in [nfc, nfd] {
                assert_eq!(found(&format!("{prompt}'s tongue"), subject), Some((0, prompt)));
            }
        }
        // Accents in another order, Hangul by syllable and by letter, and the sign of the unit.
        assert_eq!(found("a\u{323}\u{302} x", "a\u{302}\u{323}"), Some((0, "a\u{323}\u{302}")));
        assert_eq!(
            found("\u{1109}\u{1165}\u{110b}\u{116e}\u{11af}", "\u{c11c}\u{c6b8}").map(|f| f.0),
            Some(0)
        );
        assert_eq!(found("1 \u{212b}", "\u{c5}"), Some((2, "\u{212b}")));
        // A letter without its accent is another letter, however the accent is encoded.
        assert_eq!(found("Jos\u{e9} is", "Jose"), None);
        assert_eq!(found("Jose\u{301} is", "Jose"), None);
    }

    #[test]
    fn scripts_without_spaces_have_words_everywhere() {
        let prompt = "\u{5c45}\u{91cc}\u{592b}\u{4eba}\u{51fa}\u{751f}\u{4e8e}";
        assert_eq!(found(prompt, "\u{592b}\u{4eba}").map(|f| f.0), Some(6));
        assert_eq!(found("\u{c11c}\u{c6b8}\u{c740} ", "\u{c11c}\u{c6b8}").map(|f| f.0), Some(0));
    }
}
