//! Discovery and held-out pairs: a circuit is measured on pairs that it was not found on.

use std::collections::BTreeMap;

use locus_circuits::edges::Pair;
use locus_files::sha256;

/// What a pair is known by: the first 16 hexadecimal digits of the SHA-256 of its two prompts, as tokens in little
/// endian, the smaller prompt first. A pair and its mirror image (clean and corrupted exchanged) have one key, so that
/// neither is held out from the other.
pub fn pair_key(pair: &Pair) -> String {
    let (first, second) = if pair.clean <= pair.corrupted {
        (&pair.clean, &pair.corrupted)
    } else {
        (&pair.corrupted, &pair.clean)
    };
    let length = (first.len() as u32).to_le_bytes();
    let tokens = first.iter().chain(second).flat_map(|token| token.to_le_bytes());
    let bytes: Vec<u8> = length.into_iter().chain(tokens).collect();
    sha256(&bytes)[..16].to_owned()
}

/// Splits pairs into those that a circuit is found on and those held out, each in their order: keys are ranked by a hash
/// of `seed` and key, and the first are held out until `share` of the pairs is reached.
///
/// # Panics
/// When the share is not in [0, 1].
pub fn hold_out(pairs: &[Pair], share: f64, seed: u64) -> (Vec<Pair>, Vec<Pair>) {
    assert!((0.0..=1.0).contains(&share), "a share of {share}");
    let keys: Vec<String> = pairs.iter().map(pair_key).collect();
    let mut ranks: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    for key in &keys {
        let rank = sha256(format!("{seed}/{key}").as_bytes());
        ranks.entry(rank).or_insert((key, 0)).1 += 1;
    }
    let wanted = (share * pairs.len() as f64).round() as usize;
    let mut held_out = Vec::new();
    let mut count = 0;
    for (key, n) in ranks.into_values() {
        if count >= wanted {
            break;
        }
        held_out.push(key);
        count += n;
    }
    let is_held_out = |key: &String| held_out.contains(&key.as_str());
    let part = |which: bool| {
        let of_part = pairs.iter().zip(&keys).filter(|(_, key)| is_held_out(key) == which);
        of_part.map(|(pair, _)| pair.clone()).collect()
    };
    (part(false), part(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(clean: u32, corrupted: u32) -> Pair {
        Pair { clean: vec![1, clean], corrupted: vec![1, corrupted], correct: vec![2], incorrect: vec![3] }
    }

    #[test]
    fn parts_are_disjoint_and_mirror_images_stay_together() {
        let mut pairs: Vec<Pair> = (0..40).map(|i| pair(i, i + 100)).collect();
        pairs.extend((0..40).map(|i| pair(i + 100, i)));
        let (found_on, held_out) = hold_out(&pairs, 0.5, 1);
        assert_eq!((found_on.len(), held_out.len()), (40, 40));
        let keys: Vec<String> = found_on.iter().map(pair_key).collect();
        assert!(held_out.iter().all(|pair| !keys.contains(&pair_key(pair))));
        assert_ne!(hold_out(&pairs, 0.5, 2).1, held_out);
        // Neither the order of the pairs nor what is asked of them changes who is held out.
        pairs.reverse();
        pairs.iter_mut().for_each(|pair| pair.correct = vec![7]);
        let mut again: Vec<String> = hold_out(&pairs, 0.5, 1).1.iter().map(pair_key).collect();
        again.sort();
        let mut before: Vec<String> = held_out.iter().map(pair_key).collect();
        before.sort();
        assert_eq!(again, before);
    }

    #[test]
    fn all_and_none() {
        let pairs: Vec<Pair> = (0..5).map(|i| pair(i, i + 100)).collect();
        assert_eq!(hold_out(&pairs, 0.0, 1).0, pairs);
        assert_eq!(hold_out(&pairs, 1.0, 1).1, pairs);
        assert_eq!(hold_out(&[], 0.5, 1), (vec![], vec![]));
    }
}
