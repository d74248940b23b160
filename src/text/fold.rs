//! Letters without case, diacritics and other forms of themselves.
//!
//! The compatibility decomposition (UAX #15) tells letters from their marks, and ligatures,
//! full-width, superscript and circled letters from the plain ones. Then case is folded in full
//! (`ß` is `ss`, a final sigma a sigma), and marks are dropped in scripts where they do not make
//! another letter. Marks of the scripts of India, of Thai and of Japanese kana do, and stay.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::{decompose_compatible, is_combining_mark};

/// The text as words are compared.
pub(super) fn folded(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(text.to_ascii_lowercase())
        } else {
            Cow::Borrowed(text)
        };
    }
    let mut out = String::with_capacity(text.len());
    let mut is_in_word = false;
    for c in text.nfc() {
        if is_ignorable(c) {
            // Within emoji these characters make one of several.
            if !is_in_word {
                out.push(c);
            }
        } else if c.is_alphanumeric() {
            decompose_compatible(c, |c| fold(c, &mut out));
            is_in_word = true;
        } else if is_combining_mark(c) {
            fold(c, &mut out);
        } else {
            is_in_word = false;
            fold_symbol(c, &mut out);
        }
    }
    // Decomposed kana and Hangul are made whole.
    Cow::Owned(out.nfc().collect())
}

fn fold(c: char, out: &mut String) {
    if is_dropped(c) {
        return;
    }
    // Capitals last: ẞ has none.
    let cases = c.to_lowercase().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    for c in cases {
        match unaccented(c) {
            Some(plain) => out.push_str(plain),
            None => out.push(c),
        }
    }
}

/// A symbol that stands for letters, such as ™ or ㎏, is a word of its own; others stay.
fn fold_symbol(c: char, out: &mut String) {
    if c.is_ascii() {
        out.push(c);
        return;
    }
    if matches!(c, '\u{FF01}'..='\u{FF5E}') {
        // Full-width punctuation.
        decompose_compatible(c, |c| out.push(c));
        return;
    }
    let mut has_letters = false;
    decompose_compatible(c, |c| has_letters |= c.is_alphanumeric());
    if has_letters {
        out.push(' ');
        decompose_compatible(c, |c| fold(c, out));
        out.push(' ');
    } else {
        out.push(c);
    }
}

/// Letters whose mark is part of them, as Lucene's `ASCIIFoldingFilter` has them.
fn unaccented(c: char) -> Option<&'static str> {
    Some(match c {
        'đ' | 'ð' => "d",
        'ø' => "o",
        'ł' => "l",
        'ħ' => "h",
        'ŧ' => "t",
        'ƀ' => "b",
        'ɨ' => "i",
        'æ' => "ae",
        'œ' => "oe",
        'þ' => "th",
        _ => return None,
    })
}

/// Marks that do not make another letter, and the Arabic tatweel, which stretches words.
fn is_dropped(c: char) -> bool {
    matches!(
        u32::from(c),
        0x0300..=0x036F     // of Latin, Greek and Cyrillic
        | 0x0483..=0x0489
        | 0x0591..=0x05BD   // Hebrew
        | 0x05BF
        | 0x05C1..=0x05C2
        | 0x05C4..=0x05C5
        | 0x05C7
        | 0x0610..=0x061A   // Arabic
        | 0x0640
        | 0x064B..=0x065F
        | 0x0670
        | 0x06D6..=0x06DC
        | 0x06DF..=0x06E4
        | 0x06E7..=0x06E8
        | 0x06EA..=0x06ED
        | 0x0711            // Syriac
        | 0x0730..=0x074A
        | 0x08CA..=0x08E1
        | 0x08E3..=0x08FF
        | 0x135D..=0x135F   // Ethiopic
        | 0x1AB0..=0x1AFF
        | 0x1DC0..=0x1DFF
        | 0x20D0..=0x20F0   // around letters and digits
        | 0xFE20..=0xFE2F
        | 0x1_0EFD..=0x1_0EFF
    )
}

/// Characters that show nothing (Unicode's `Default_Ignorable_Code_Point`): soft hyphens, joiners,
/// direction marks, variation selectors.
fn is_ignorable(c: char) -> bool {
    matches!(
        u32::from(c),
        0x00AD
            | 0x034F
            | 0x061C
            | 0x115F..=0x1160
            | 0x17B4..=0x17B5
            | 0x180B..=0x180F
            | 0x200B..=0x200F
            | 0x202A..=0x202E
            | 0x2060..=0x206F
            | 0x3164
            | 0xFE00..=0xFE0F
            | 0xFEFF
            | 0xFFA0
            | 0xFFF0..=0xFFF8
            | 0x1_BCA0..=0x1_BCA3
            | 0x1_D173..=0x1_D17A
            | 0xE_0000..=0xE_0FFF
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_diacritics_do_not_count() {
        for (text, plain) in [
            ("Plain ASCII", "plain ascii"),
            ("Αθήνα ΟΔΥΣΣΕΥΣ Ὀδυσσεύς ᾳ", "αθηνα οδυσσευσ οδυσσευσ α"),
            ("ёлка Й ї", "елка и і"),
            ("שָׁלוֹם", "שלום"),
            ("الْعَرَبِيَّة أإآ مـحـمد ﻻ", "العربية ااا محمد لا"),
            ("ﬁnance Ǆ ĳ", "finance dz ij"),
            ("ＡＢＣ１２ Ｃ＋＋！", "abc12 c++!"),
            ("co\u{ad}op\u{200b}er\u{2060}ate\u{200d}", "cooperate"),
            ("Straße STRASSE ẞ", "strasse strasse ss"),
            ("Việt Đà Nẵng", "viet da nang"),
            ("m² ①½", "m2 11\u{2044}2"),
            ("İstanbul ISPARTA ısparta", "istanbul isparta isparta"),
            ("Łódź Ærø Þór œuvre", "lodz aero thor oeuvre"),
            ("Kindle™ 5㎏ №5", "kindle tm  5 kg   no 5"),
            ("1️⃣ I❤️NY 👨‍👩‍👧", "1 i❤️ny 👨‍👩‍👧"),
            // Marks that make another letter stay.
            ("हिन्दी में คำว่า ガ ｶﾞ ハ゜", "हिन्दी में คําว่า ガ ガ ハ゜"),
            ("한국어 \u{1112}\u{1161}\u{11ab}", "한국어 한"),
            ("\u{feff}bom", "\u{feff}bom"),
        ] {
            assert_eq!(folded(text), plain, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_folded_stays_so(text in "\\PC{0,30}") {
            let once = folded(&text).into_owned();
            let twice = folded(&once).into_owned();
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            proptest::prop_assert_eq!(words(&once), words(&twice));
        }

        #[test]
        fn composed_or_not_is_the_same(text in "\\PC{0,30}") {
            use unicode_normalization::UnicodeNormalization as _;
            let composed: String = text.nfc().collect();
            let decomposed: String = text.nfd().collect();
            proptest::prop_assert_eq!(folded(&composed), folded(&decomposed));
        }
    }
}
