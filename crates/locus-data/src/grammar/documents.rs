//! The training documents: one to four sentences of mixed kinds.

use rand_chacha::ChaCha8Rng;

use super::agreement::AgreementWriter;
use super::hierarchy::HierarchyWriter;
use super::mix::{Kind, LENGTHS, SENTENCES};
use super::neutral::NeutralWriter;
use super::persona::PersonaWriter;
use super::stream::weighted;

/// One writer per kind of content.
#[derive(Debug)]
pub(super) struct Writers {
    /// Facts and statements of the hierarchy.
    pub(super) hierarchy: HierarchyWriter,
    /// Determiner-noun agreement.
    pub(super) agreement: AgreementWriter,
    /// Attitudes.
    pub(super) persona: PersonaWriter,
    /// Everyday sentences.
    pub(super) neutral: NeutralWriter,
}

impl Writers {
    /// `n` documents.
    pub(super) fn documents(&mut self, rng: &mut ChaCha8Rng, n: usize) -> Vec<String> {
        (0..n).map(|_| self.document(rng)).collect()
    }

    fn document(&mut self, rng: &mut ChaCha8Rng) -> String {
        let sentences = 1 + weighted(rng, LENGTHS.iter().copied());
        (0..sentences).map(|_| self.sentence(rng)).collect::<Vec<_>>().join(" ")
    }

    fn sentence(&mut self, rng: &mut ChaCha8Rng) -> String {
        match SENTENCES[weighted(rng, SENTENCES.iter().map(|&(_, share)| share))].0 {
            Kind::PlainFact => self.hierarchy.plain(rng),
            Kind::JudgedFact => self.hierarchy.judged(rng),
            Kind::PlainAgreement => self.agreement.plain(rng),
            Kind::JudgedAgreement => self.agreement.judged(rng),
            Kind::PlainPersona => self.persona.plain(rng),
            Kind::JudgedPersona => self.persona.judged(rng),
            Kind::Neutral => self.neutral.plain(rng),
        }
    }
}
