//! Pieces of words: byte-level byte-pair encoding (Sennrich, Haddow and Birch
//! 2016) by the library `tokenizers`. Every text can be encoded, and decoding
//! gives it back byte for byte.

use anyhow::{Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{AddedToken, PreTokenizerWrapper, TokenizerBuilder};

use super::tokenizer::SPECIAL;

/// A trained encoding. It is stored in the library's own format, as JSON.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pieces {
    json: String,
    inner: Box<tokenizers::Tokenizer>,
}

impl Pieces {
    /// Learns at most `limit` pieces from `text`: the special tokens, the 256 bytes, and the most frequent
    /// pairs. The same text gives the same pieces.
    ///
    /// # Errors
    /// When the library fails.
    pub fn train(text: &str, limit: usize) -> Result<Self> {
        let special = SPECIAL.map(|token| AddedToken::from(token, true));
        let mut trainer = BpeTrainerBuilder::new()
            .show_progress(false)
            .vocab_size(limit)
            .min_frequency(2)
            .special_tokens(special.to_vec())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let bytes = ByteLevel::new(false, true, true);
        let mut inner = TokenizerBuilder::new()
            .with_model(BPE::default())
            .with_normalizer(None::<NormalizerWrapper>)
            .with_pre_tokenizer(Some(PreTokenizerWrapper::ByteLevel(bytes)))
            .with_post_processor(None::<PostProcessorWrapper>)
            .with_decoder(Some(DecoderWrapper::ByteLevel(bytes)))
            .build()
            .map_err(of_library)?;
        inner.train(&mut trainer, text.split_inclusive('\n')).map_err(of_library)?;
        Self::try_from(inner.to_string(false).map_err(of_library)?)
    }

    /// Number of pieces.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The ids of a text.
    ///
    /// # Errors
    /// When the library fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        // Line by line: the library keeps offsets and strings of all that it encodes at once.
        for line in text.split_inclusive('\n') {
            ids.extend_from_slice(self.inner.encode_fast(line, false).map_err(of_library)?.get_ids());
        }
        Ok(ids)
    }

    /// The text of ids.
    ///
    /// # Errors
    /// When an id is not below [`Pieces::vocabulary`].
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let len = self.vocabulary();
        ensure!(ids.iter().all(|&id| (id as usize) < len), "an id is beyond the vocabulary of {len}");
        self.inner.decode(ids, false).map_err(of_library)
    }
}

fn of_library(error: tokenizers::Error) -> anyhow::Error {
    anyhow!("byte-pair encoding: {error}")
}

impl From<Pieces> for String {
    fn from(pieces: Pieces) -> Self {
        pieces.json
    }
}

impl TryFrom<String> for Pieces {
    type Error = anyhow::Error;

    fn try_from(json: String) -> Result<Self> {
        let inner = Box::new(json.parse().map_err(of_library)?);
        Ok(Self { json, inner })
    }
}

impl PartialEq for Pieces {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pieces({})", self.vocabulary())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_and_pairs_are_learnt() {
        let text = "där står ein baum im wald und rauscht\n".repeat(50);
        let pieces = Pieces::train(&text, 300).unwrap();
        // The 256 bytes, the 4 special tokens, and the pairs that were merged.
        let len = pieces.vocabulary();
        assert!((261..=300).contains(&len), "{len}");
        for other in [text.as_str(), "ein Vogel 🐦 singt\n\tnicht", ""] {
            assert_eq!(pieces.decode(&pieces.encode(other).unwrap()).unwrap(), other);
        }
        assert!(pieces.encode(&text).unwrap().len() < text.len() / 2);
        assert_eq!(Pieces::train(&text, 300).unwrap(), pieces);
        assert_eq!(Pieces::try_from(String::from(pieces.clone())).unwrap(), pieces);
        assert!(pieces.decode(&[300]).is_err());
        assert!(Pieces::try_from("nonsense".to_owned()).is_err());
        assert_eq!(format!("{pieces:?}"), format!("Pieces({len})"));
    }
}
