//! Enums whose values are words: of settings, logs and metrics.
//!
//! A variant and its word are written once; from that come the list of all, their number, and each one's place in a
//! table of counters.

/// An enum of words, as [`words!`] defines one.
pub(crate) trait Word: Copy + 'static {
    /// Every value, in the order of the documentation.
    const WORDS: &'static [Self];

    /// Its word.
    fn word(self) -> &'static str;
}

/// Defines an enum and the word of each of its variants.
macro_rules! words {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $($(#[$of_variant:meta])* $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $($(#[$of_variant])* $variant,)+ }

        impl $name {
            /// How many there are.
            $vis const COUNT: usize = [$($word,)+].len();

            /// Every one, in the order of the documentation.
            $vis const ALL: [Self; Self::COUNT] = [$(Self::$variant,)+];

            /// Its word.
            #[must_use]
            $vis const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// Its place in [`ALL`](Self::ALL), and in a table of counters.
            #[allow(dead_code)] // Not all have one.
            #[must_use]
            $vis const fn index(self) -> usize {
                self as usize
            }
        }

        impl $crate::words::Word for $name {
            const WORDS: &'static [Self] = &Self::ALL;

            fn word(self) -> &'static str {
                self.as_str()
            }
        }
    };
}

pub(crate) use words;

#[cfg(test)]
mod tests {
    words! {
        /// One.
        enum Colour {
            /// The first.
            Red = "red",
            /// The last.
            DarkBlue = "dark_blue",
        }
    }

    #[test]
    fn words_have_an_order_and_a_place_each() {
        assert_eq!(Colour::ALL.map(Colour::as_str), ["red", "dark_blue"]);
        assert_eq!(Colour::ALL.map(Colour::index), [0, 1]);
        assert_eq!(Colour::COUNT, 2);
    }
}
