//! How a type says which fields its record has: `encode_fields!` for a struct, `encode_variants!` for an enum.

/// Says of a struct how it is written: the number of each field, ascending, `critical` before it where it is, and behind
/// it `: tick` where it is a tick, and the default where it has one (of a tick: as a distance from now).
///
/// ```text
/// encode_fields!(Mark { critical 1 since: tick = 0, 2 seen = 0, 4 name });
/// ```
///
/// `src/encoding.rs` says what is critical and what a default is for.
macro_rules! encode_fields {
    ($type:ty { $(
        $($critical:ident)? $number:literal $field:ident $(: $as:ident)? $(= $default:expr)?
    ),* $(,)? }) => {
        impl $crate::encoding::Encode for $type {
            fn write(&self, to: &mut $crate::encoding::Writer) {
                // Without `..`: a field without a number does not compile.
                let Self { $($field),* } = self;
                $crate::encoding::encode_fields!(@write to $(
                    $($critical)? $number $field $(: $as)? $(= $default)?
                ),*);
            }

            fn read(
                from: &mut $crate::encoding::Reader<'_>,
            ) -> Result<Self, $crate::encoding::RecordFault> {
                $crate::encoding::encode_fields!(@read from, stringify!($type), Self { $(
                    $($critical)? $number $field $(: $as)? $(= $default)?
                ),* })
            }
        }
        const _: () = assert!($crate::encoding::is_ascending(&[$($number),*]));
    };

    (@write $to:ident $(
        $($critical:ident)? $number:literal $field:ident $(: $as:ident)? $(= $default:expr)?
    ),*) => {
        $($crate::encoding::encode_fields!(
            @field $to, ($($critical)? $number) $field ($($as)?) ($($default)?)
        );)*
        #[cfg(test)]
        $to.change_record();
    };
    (@field $to:ident, $tag:tt $field:ident () ()) => {
        $to.field($crate::encoding::encode_fields!(@tag $tag), $field);
    };
    (@field $to:ident, $tag:tt $field:ident () ($default:expr)) => {
        $to.field_unless($crate::encoding::encode_fields!(@tag $tag), $field, &$default);
    };
    (@field $to:ident, $tag:tt $field:ident (tick) $default:tt) => {
        let distance = &$to.distance(*$field);
        $crate::encoding::encode_fields!(@field $to, $tag distance () $default);
    };
    (@tag (critical $number:literal)) => { $number | $crate::encoding::CRITICAL };
    (@tag ($number:literal)) => { $number };

    (@read $from:ident, $record:expr, $($path:ident)::+ { $(
        $($critical:ident)? $number:literal $field:ident $(: $as:ident)? $(= $default:expr)?
    ),* }) => {{
        $(let mut $field = None;)*
        let mut last = 0;
        while let Some(field) = $from.field($record, &mut last)? {
            match field.number() {
                $($number => $field = Some(field.read()?),)*
                _ => field.skip()?,
            }
        }
        $(
            let $field = match $field {
                Some(value) => value,
                None => $crate::encoding::encode_fields!(
                    @default $from, $record, $number, ($($default)?)
                ),
            };
            $(let $field = $from.$as($field);)?
        )*
        Ok($($path)::+ { $($field),* })
    }};
    (@default $from:ident, $record:expr, $number:literal, ($default:expr)) => { $default };
    (@default $from:ident, $record:expr, $number:literal, ()) => {
        $from.missing($record, $number)?
    };
}
pub(crate) use encode_fields;

/// Says of an enum how it is written: the number of each variant, ascending, and its fields as in [`encode_fields!`].
/// A variant without fields is written as if it had some: it may get some later.
///
/// ```text
/// encode_variants!(Source { 0 Open, 1 Broken { critical 1 told = false } });
/// ```
macro_rules! encode_variants {
    ($type:ty { $($variant_number:literal $variant:ident $({ $(
        $($critical:ident)? $number:literal $field:ident $(: $as:ident)? $(= $default:expr)?
    ),* $(,)? })?),* $(,)? }) => {
        impl $crate::encoding::Encode for $type {
            fn write(&self, to: &mut $crate::encoding::Writer) {
                match self {
                    $(Self::$variant { $($($field),*)? } => {
                        to.bytes(&[$variant_number]);
                        $crate::encoding::encode_fields!(@write to $($(
                            $($critical)? $number $field $(: $as)? $(= $default)?
                        ),*)?);
                    })*
                }
            }

            fn read(
                from: &mut $crate::encoding::Reader<'_>,
            ) -> Result<Self, $crate::encoding::RecordFault> {
                match from.array()? {
                    $([$variant_number] => $crate::encoding::encode_fields!(
                        @read from, concat!(stringify!($type), "::", stringify!($variant)),
                        Self::$variant { $($(
                            $($critical)? $number $field $(: $as)? $(= $default)?
                        ),*)? }
                    ),)*
                    [number] => {
                        let record = stringify!($type);
                        Err($crate::encoding::RecordFault::UnknownVariant(record, number))
                    }
                }
            }
        }
        const _: () = {
            assert!($crate::encoding::is_ascending(&[$($variant_number + 1),*]));
            $($(assert!($crate::encoding::is_ascending(&[$($number),*]));)?)*
        };
    };
}
pub(crate) use encode_variants;

/// Whether each number is higher than the one before, and can be a field's.
pub(crate) const fn is_ascending(numbers: &[u16]) -> bool {
    let (mut last, mut rest) = (0, numbers);
    while let [first, others @ ..] = rest {
        if *first <= last || *first & super::CRITICAL != 0 {
            return false;
        }
        (last, rest) = (*first, others);
    }
    true
}
