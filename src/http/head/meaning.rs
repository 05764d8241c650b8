//! What field lines say of the whole message: where it goes, and how long its body is.

use super::bytes::is_token;
use super::lines::trim;
use super::{Fault, Field, Framing, Version, is_host};

/// What the fields say of the whole message: where it goes and how long it is.
pub(super) fn of_request<'a>(
    fields: &[Field<'a>],
    version: Version,
) -> Result<(Option<&'a [u8]>, Framing), Fault> {
    let mut host = None;
    let mut length = None;
    let mut coding = None;
    for field in fields {
        let (once, fault) = match field.name.len() {
            4 if field.is(b"host") => (&mut host, Fault::SeveralHosts),
            14 if field.is(b"content-length") => (&mut length, Fault::SeveralLengths),
            17 if field.is(b"transfer-encoding") => (&mut coding, Fault::Coding),
            14 | 17 if disguises_framing(field.name) => return Err(Fault::Disguised),
            _ => continue,
        };
        if once.replace(field.value).is_some() {
            return Err(fault);
        }
    }
    // RFC 9112, section 3.2.
    match host {
        Some(host) if !is_host(host) => return Err(Fault::Host),
        None if version == Version::Http11 => return Err(Fault::NoHost),
        _ => {}
    }
    Ok((host, framing(length, coding, version)?.unwrap_or(Framing::Absent)))
}

/// How long a response's body is, as far as its fields say so. A length must be said once, and chunked is the only
/// coding: no other was asked for, since `TE` does not pass, and the client could make no sense of it.
pub(super) fn of_response(
    fields: &[Field<'_>],
    version: Version,
) -> Result<Option<Framing>, Fault> {
    let mut length = None;
    let mut coding = None;
    for field in fields {
        let (once, fault) = match field.name.len() {
            14 if field.is(b"content-length") => (&mut length, Fault::SeveralLengths),
            17 if field.is(b"transfer-encoding") => (&mut coding, Fault::Coding),
            _ => continue,
        };
        if once.replace(field.value).is_some() {
            return Err(fault);
        }
    }
    framing(length, coding, version)
}

/// RFC 9112, sections 6.1 and 6.3.
fn framing(
    length: Option<&[u8]>,
    coding: Option<&[u8]>,
    version: Version,
) -> Result<Option<Framing>, Fault> {
    match (length, coding) {
        (Some(_), Some(_)) => Err(Fault::LengthAndCoding),
        (Some(length), None) => content_length(length).map(Framing::Length).map(Some),
        (None, Some(coding)) => {
            transfer_coding(coding, version)?;
            Ok(Some(Framing::Chunked))
        }
        (None, None) => Ok(None),
    }
}

/// Whether these field lines may stand behind a body: one that would change what the message means may not (RFC 9110,
/// section 6.5.1).
pub(super) fn of_trailers(fields: &[Field<'_>]) -> Result<(), Fault> {
    let is_bad = |field: &Field<'_>| match field.name.len() {
        4 => field.is(b"host"),
        14 | 17 => {
            field.is(b"content-length")
                || field.is(b"transfer-encoding")
                || disguises_framing(field.name)
        }
        _ => false,
    };
    if fields.iter().any(is_bad) { Err(Fault::Trailer) } else { Ok(()) }
}

/// What OPTIONS and TRACE say to who passes them on (RFC 9110, section 7.6.2). TRACE has no content (section
/// 9.3.8): to who knows that, some would be the next request.
pub(super) fn of_intermediaries(
    method: &[u8],
    fields: &[Field<'_>],
    framing: Framing,
) -> Result<Option<u64>, Fault> {
    match method {
        b"TRACE" if !framing.is_empty() => return Err(Fault::Trace),
        b"TRACE" | b"OPTIONS" => {}
        _ => return Ok(None),
    }
    let mut numbers = fields.iter().filter(|field| field.is(b"max-forwards"));
    match (numbers.next(), numbers.next()) {
        (None, _) => Ok(None),
        (Some(number), None) => max_forwards(number.value).map(Some),
        (Some(_), Some(_)) => Err(Fault::MaxForwards),
    }
}

/// Digits; of more than there can be, the most that is supported (RFC 9110, section 7.6.2).
pub(in crate::http) fn max_forwards(value: &[u8]) -> Result<u64, Fault> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Fault::MaxForwards);
    }
    Ok(decimal(value).unwrap_or(u64::MAX))
}

/// A framing field in a spelling that some read as the field itself: whoever hands fields on as CGI
/// variables (RFC 3875, section 4.1.18) has one sign for all that is no letter or digit.
fn disguises_framing(name: &[u8]) -> bool {
    let same = |ours: &[u8]| {
        name.len() == ours.len()
            && !name.eq_ignore_ascii_case(ours)
            && name.iter().zip(ours).all(|(byte, our)| match our {
                b'-' => !byte.is_ascii_alphanumeric(),
                our => byte.eq_ignore_ascii_case(our),
            })
    };
    same(b"content-length") || same(b"transfer-encoding")
}

/// Digits alone (RFC 9110, section 8.6). Zeros in front change nothing: the number is written on without them.
pub(in crate::http) fn content_length(value: &[u8]) -> Result<u64, Fault> {
    // Half of the numbers, so that nobody takes one for negative.
    decimal(value).filter(|length| i64::try_from(*length).is_ok()).ok_or(Fault::Length)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// `chunked` alone. Another coding before it could be done and is not; anything else leaves the end
/// of the body open.
pub(in crate::http) fn transfer_coding(value: &[u8], version: Version) -> Result<(), Fault> {
    // RFC 9112, section 6.1: in HTTP/1.0 the framing is faulty.
    if version == Version::Http10 {
        return Err(Fault::OldCoding);
    }
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = value.split(|byte| *byte == b',').map(trim);
    let last = codings.next_back().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let known = |coding: &[u8]| is_token(coding) && !coding.eq_ignore_ascii_case(b"chunked");
    Err(if last && codings.all(known) { Fault::UnknownCoding } else { Fault::Coding })
}
