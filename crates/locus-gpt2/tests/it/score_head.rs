//! Score heads of three classes: the gradient of their loss, and training on classes that can be told apart.

use locus_gpt2::{HeadTraining, ScoreHead, argmax};
use locus_testkit::{check_directional, random_vector};
use ndarray::{Array2, s};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

const CLASSES: usize = 3;

fn random(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
    Array2::from_shape_vec((rows, columns), random_vector(rows * columns, seed)).unwrap()
}

/// Cross-entropy of classes by the formula.
fn loss(logits: &Array2<f64>, classes: &[usize]) -> f64 {
    let of_row = |(row, &class): (ndarray::ArrayView1<f64>, &usize)| {
        row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[class]
    };
    logits.rows().into_iter().zip(classes).map(of_row).sum()
}

#[test]
fn gradient_of_three_classes() {
    let (head, features) = (ScoreHead { weight: random(CLASSES, 5, 1) }, random(7, 5, 2));
    let classes = [0, 1, 2, 2, 0, 1, 2];
    let (found, d_features) = head.cross_entropy_backward(features.view(), &classes);
    assert!((found - loss(&features.dot(&head.weight.t()), &classes)).abs() < 1e-12);
    check_directional(
        "features",
        features.as_slice().unwrap(),
        d_features.as_slice().unwrap(),
        3,
        |values| {
            let features = Array2::from_shape_vec(features.dim(), values.to_vec()).unwrap();
            loss(&head.read_out(features.view()), &classes)
        },
    );
}

/// Each class has a direction of its own, with noise on it; held-out rows are told apart, and no class is left out.
#[test]
fn training_separates_planted_classes() {
    let directions = random(CLASSES, 8, 1);
    let classes: Vec<usize> = (0..90).map(|row| row * 7 % CLASSES).collect();
    let mut features = 0.3 * random(90, 8, 2);
    for (mut row, &class) in features.rows_mut().into_iter().zip(&classes) {
        row += &directions.row(class);
    }
    let (train, held_out) = (features.slice(s![..60, ..]), features.slice(s![60.., ..]));
    let training = HeadTraining { epochs: 50, batch_sequences: 16, ..HeadTraining::default() };
    let fit = |seed| {
        ScoreHead::train(train, &classes[..60], CLASSES, &training, &mut ChaCha8Rng::seed_from_u64(seed))
    };
    let head = fit(1);
    assert_eq!(head.weight.dim(), (CLASSES, 8));
    assert_eq!(argmax(head.read_out(held_out).view()), classes[60..]);
    assert!((0..CLASSES).all(|class| classes[60..].contains(&class)));
    assert_eq!(fit(1).weight, head.weight);
    assert_ne!(fit(2).weight, head.weight, "the order of the rows comes from the generator");
}

#[test]
fn the_first_of_equal_logits_is_chosen() {
    let logits = ndarray::arr2(&[[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [-1.0, -2.0, -1.0]]);
    assert_eq!(argmax(logits.view()), [0, 1, 0]);
}
