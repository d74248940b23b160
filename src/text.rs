//! Words: what texts and queries are cut into before SQLite's full-text index sees them.
//!
//! Letters lose case and diacritics (`fold`); then words begin and end on grapheme clusters (UAX
//! #29), the same for a stored text as for a query:
//!
//! * letters and digits side by side are a word, punctuation is not part of it (`what's` is two);
//! * `+` and `#` at a word's end belong to it: `C++` and `C#` are not `C`;
//! * symbols and emoji are words of their own;
//! * in scripts that do not put spaces between words (Chinese, Japanese, Korean, Thai, …) every
//!   character is a word, and a query looks for pairs of neighbors, as Lucene's `CJKAnalyzer` does.

mod fold;

use std::collections::HashSet;

use unicode_segmentation::UnicodeSegmentation;

use self::fold::folded;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{Limits, exceeded};

/// Grows whenever the same text gives other words: an index of another version is filled again.
pub const WORDS_VERSION: i64 = 2;

/// What of a query a text has to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TextMatch {
    /// Any of its words; texts with more and rarer ones rank higher.
    #[default]
    Any,
    /// All of its words, anywhere.
    All,
    /// All of its words, side by side, in that order.
    Phrase,
    /// All of its words, the last of which may be just the beginning of one.
    Prefix,
}

impl TextMatch {
    /// The way of matching of that name.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "any" => Ok(Self::Any),
            "all" => Ok(Self::All),
            "phrase" => Ok(Self::Phrase),
            "prefix" => Ok(Self::Prefix),
            _ => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("unknown text match '{name}'; use 'any', 'all', 'phrase' or 'prefix'"),
            )),
        }
    }
}

/// Words that stand side by side in the texts looked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Phrase {
    /// The words.
    pub words: Vec<String>,
    /// Whether the last word may be just the beginning of one.
    pub is_prefix: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word<'a> {
    text: &'a str,
    /// Counts the gaps of white space before it.
    gap: usize,
    /// Whether its script puts no spaces between words.
    is_unspaced: bool,
}

/// The text as the index gets it: its words with a space between them.
pub fn indexable(text: &str) -> String {
    let text = folded(text);
    let mut out = String::with_capacity(text.len());
    for word in words(&text) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word.text);
    }
    out
}

/// What to look for; empty where the query has no words. Where any word will do, those beyond the
/// limit are passed over.
///
/// # Errors
/// [`ErrorKind::InvalidQuery`] for a query beyond the limits.
pub fn phrases(query: &str, mode: TextMatch, limits: &Limits) -> Result<Vec<Phrase>> {
    let invalid = |found: String, option, most, advice| {
        Err(exceeded(ErrorKind::InvalidQuery, found, option, most, advice))
    };
    if query.len() > limits.query_bytes {
        let found = format!("the query text has {} bytes", query.len());
        return invalid(found, "query_bytes", limits.query_bytes, "search for fewer words");
    }
    let query = folded(query);
    let words = words(&query);
    let owned = |words: &[Word<'_>]| words.iter().map(|word| word.text.to_owned()).collect();
    let mut found: Vec<Vec<String>> = Vec::new();
    if mode == TextMatch::Phrase {
        if words.len() > limits.phrase_words {
            let found = format!("the phrase has {} words", words.len());
            let advice = "search for a shorter one, or for 'all' of its words";
            return invalid(found, "phrase_words", limits.phrase_words, advice);
        }
        found.extend((!words.is_empty()).then(|| owned(&words)));
    } else {
        for run in words.chunk_by(|a, b| a.gap == b.gap && a.is_unspaced == b.is_unspaced) {
            if run.len() > 1 && run[0].is_unspaced {
                found.extend(run.windows(2).map(owned));
            } else {
                // Each piece begins with the last word of the one before it.
                let most = limits.joined_words.max(2);
                let pieces = (0..run.len().max(2) - 1).step_by(most - 1);
                found.extend(pieces.map(|start| owned(&run[start..(start + most).min(run.len())])));
            }
        }
    }
    let last = found.len().checked_sub(1).filter(|_| mode == TextMatch::Prefix);
    let mut seen = HashSet::new();
    let mut phrases: Vec<Phrase> = found
        .into_iter()
        .enumerate()
        .map(|(at, words)| Phrase { words, is_prefix: Some(at) == last })
        .filter(|phrase| seen.insert(phrase.clone()))
        .collect();
    if phrases.len() > limits.query_words && mode != TextMatch::Any {
        let found = format!("the query text has {} different words", phrases.len());
        let advice = "search for fewer of them, or for 'any' of them";
        return invalid(found, "query_words", limits.query_words, advice);
    }
    phrases.truncate(limits.query_words);
    Ok(phrases)
}

fn words(text: &str) -> Vec<Word<'_>> {
    let mut words: Vec<Word<'_>> = Vec::new();
    let mut gap = 0;
    // Where the word under way began, and where its suffix of + and # ends.
    let mut start = None;
    let mut suffix_end = 0;
    for (at, cluster) in text.grapheme_indices(true).flat_map(without_space) {
        let first = cluster.chars().next().unwrap_or(' ');
        let is_letter = first.is_alphanumeric();
        let is_unspaced = is_letter && is_unspaced(first);
        if is_letter && !is_unspaced {
            start.get_or_insert(at);
            continue;
        }
        if at < suffix_end {
            continue;
        }
        if let Some(from) = start {
            let suffix = if matches!(first, '+' | '#') { suffix(&text[at..]) } else { 0 };
            suffix_end = at + suffix;
            words.push(Word { text: &text[from..suffix_end], gap, is_unspaced: false });
            start = None;
            if suffix > 0 {
                continue;
            }
        }
        if first.is_whitespace() {
            gap += 1;
        } else if is_unspaced || !is_separator(first) {
            words.push(Word { text: cluster, gap, is_unspaced });
        }
    }
    if let Some(from) = start {
        words.push(Word { text: &text[from..], gap, is_unspaced: false });
    }
    words
}

/// The cluster, and apart from it the white space that some letters of India form one with.
fn without_space((at, cluster): (usize, &str)) -> impl Iterator<Item = (usize, &str)> {
    let space = cluster.find(char::is_whitespace).unwrap_or(0);
    let (letters, space) = cluster.split_at(space);
    [(at, letters), (at + letters.len(), space)].into_iter().filter(|(_, part)| !part.is_empty())
}

/// Bytes of `+` and `#` that end a word there; 0 if another letter follows, as in `1+1`.
fn suffix(rest: &str) -> usize {
    let after = rest.trim_start_matches(['+', '#']);
    if after.starts_with(char::is_alphanumeric) { 0 } else { rest.len() - after.len() }
}

fn is_unspaced(c: char) -> bool {
    matches!(
        u32::from(c),
        0x0E00..=0x0EFF       // Thai, Lao
        | 0x1000..=0x109F     // Myanmar
        | 0x1780..=0x17FF     // Khmer
        | 0x3040..=0x30FF     // Hiragana, Katakana
        | 0x31F0..=0x31FF
        | 0x3400..=0x4DBF     // Han
        | 0x4E00..=0x9FFF
        | 0xAC00..=0xD7A3     // Hangul: spaced, but with particles joined to words
        | 0xF900..=0xFAFF
        | 0xFF66..=0xFF9F     // halfwidth Katakana
        | 0x2_0000..=0x3_FFFF
    )
}

/// Whether a character that is no letter is punctuation, rather than a symbol worth finding.
fn is_separator(c: char) -> bool {
    c.is_ascii()
        || c.is_control()
        || matches!(
            u32::from(c),
            0x00A0..=0x00BF
                | 0x02B0..=0x036F
                | 0x0589..=0x05F4
                | 0x0600..=0x061F
                | 0x066A..=0x066D
                | 0x06D4
                | 0x0964..=0x0970
                | 0x1360..=0x1368
                | 0x2000..=0x206F
                | 0x2E00..=0x2E7F
                | 0x3000..=0x303F
                | 0x30FB
                | 0xFE00..=0xFE6F
                | 0xFEFF
                | 0xFF00..=0xFF65
                | 0xE_0000..=0xE_01EF
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked_for(query: &str, mode: TextMatch) -> Vec<String> {
        let show =
            |p: Phrase| format!("{}{}", p.words.join(" "), if p.is_prefix { "*" } else { "" });
        phrases(query, mode, &Limits::default()).unwrap().into_iter().map(show).collect()
    }

    #[test]
    fn words_are_what_people_take_for_words() {
        for (text, words) in [
            ("What's new?", "what s new"),
            ("C++ and C#, not C; 1+1", "c++ and c# not c 1 1"),
            ("hello (world", "hello world"),
            ("a-b_c.d", "a b c d"),
            ("#tag +1 ++", "tag 1"),
            ("I ❤️ NY 👨‍👩‍👧!", "i ❤️ ny 👨‍👩‍👧"),
            ("東京タワーへ", "東 京 タ ワ ー へ"),
            ("iPhone15を買う", "iphone15 を 買 う"),
            ("Äpfel, naïve", "apfel naive"),
            ("हिन्दी में", "हिन्दी में"),
            ("„zitiert“ – «cité» 5€", "zitiert cite 5 €"),
            (" \t\n", ""),
            ("", ""),
            ("?!…", ""),
            ("\u{113d1} a", "\u{113d1} a"),
        ] {
            assert_eq!(indexable(text), words, "{text}");
        }
    }

    #[test]
    fn queries_are_cut_as_texts_are() {
        use TextMatch::{All, Any, Phrase, Prefix};
        assert_eq!(looked_for("What's new", Any), ["what s", "new"]);
        assert_eq!(looked_for("new New NEW a-b", All), ["new", "a b"]);
        assert_eq!(looked_for("one two-three", Phrase), ["one two three"]);
        assert_eq!(looked_for("one tw", Prefix), ["one", "tw*"]);
        assert_eq!(looked_for("東京の天気 tea", Any), ["東 京", "京 の", "の 天", "天 気", "tea"]);
        assert_eq!(looked_for("茶", Any), ["茶"]);
        for mode in [Any, All, Phrase, Prefix] {
            assert!(looked_for("\"' (*) ^", mode).is_empty());
        }
        let many: Vec<String> = (0..5000).map(|i| format!("w{i}")).collect();
        assert_eq!(looked_for(&many.join(" "), Any).len(), 256);
    }

    #[test]
    fn no_query_is_a_bomb() {
        use TextMatch::{All, Any, Phrase, Prefix};
        let phrases = |query: &str, mode| phrases(query, mode, &Limits::default());
        let joined: Vec<String> = (0..70).map(|i| format!("w{i}")).collect();
        let found = phrases(&joined.join("-"), Any).unwrap();
        let ends: Vec<_> = found.iter().map(|p| (p.words.len(), p.words[0].as_str())).collect();
        assert_eq!(ends, [(32, "w0"), (32, "w31"), (8, "w62")]);
        let same = phrases(&"red-".repeat(10_000), Any).unwrap();
        assert!(same.len() <= 2 && same.iter().all(|phrase| phrase.words.len() <= 32));
        let many: Vec<String> = (0..300).map(|i| format!("w{i}")).collect();
        let many = many.join(" ");
        for (query, mode, said) in [
            ("x ".repeat(1 << 16), Any, ["131072 bytes", "65536 (`limits.query_bytes`"]),
            ("x ".repeat(257), Phrase, ["257 words", "256 (`limits.phrase_words`"]),
            (many.clone(), All, ["300 different words", "256 (`limits.query_words`"]),
            (many.clone(), Prefix, ["300 different words", "256 (`limits.query_words`"]),
        ] {
            let error = phrases(&query, mode).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidQuery);
            assert!(said.iter().all(|part| error.message().contains(part)), "{error}");
        }
        assert!(phrases(&"x ".repeat(256), Phrase).is_ok());
        assert_eq!(phrases(&many, Any).unwrap().len(), 256);
    }

    #[test]
    fn limits_of_queries_are_the_callers() {
        use TextMatch::{All, Any, Phrase};
        let limits = Limits {
            query_bytes: 12,
            query_words: 2,
            phrase_words: 3,
            joined_words: 2,
            ..Limits::default()
        };
        let count = |query, mode| super::phrases(query, mode, &limits).map(|found| found.len());
        assert_eq!(count("a b c", Any), Ok(2));
        assert_eq!(count("a-b-c", Any), Ok(2));
        assert!(count("a b c", All).is_err() && count("a b", All).is_ok());
        assert!(count("a b c", Phrase).is_ok() && count("a b c d", Phrase).is_err());
        assert!(count("abcdefghijkl", Any).is_ok() && count("abcdefghijklm", Any).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_cut_into_pieces_of_itself(text in "\\PC{0,60}") {
            let text = folded(&text);
            let words = words(&text);
            let mut rest = &*text;
            for word in words {
                let at = rest.find(word.text);
                proptest::prop_assert!(at.is_some() && !word.text.contains(char::is_whitespace));
                rest = &rest[at.unwrap_or(0) + word.text.len()..];
            }
        }
    }
}
