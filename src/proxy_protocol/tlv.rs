//! The TLVs of a version 2 header (specification, 2.2.1 to 2.2.8) and those of the cloud vendors.
//!
//! All are checked once, while the header is parsed; those that elbows knows are then kept in one block of bytes, in
//! their own format, and accessors walk it. Nothing is allocated without a known one, and an empty [`Tlvs`] is two
//! words, because it lives as long as its connection.
//!
//! Broken structure is a fault. A vendor's TLV with another content than the vendor documents is left out instead: the
//! types 0xE0 to 0xEF belong to whoever uses them, so it may be somebody else's and well formed. Text that is not UTF-8
//! is left out too: a client chooses its server name and its certificate's name, and `HAProxy` passes a name in an old
//! encoding as it is.

use std::fmt;
use std::str::from_utf8;

use super::{Fault, crc32c};

/// The longest unique id in bytes (specification, 2.2.5).
const MAX_UNIQUE_ID: usize = 128;

const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
pub(super) const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
/// Google Private Service Connect: the connection id alone.
const GCP: u8 = 0xE0;
/// AWS: a sub-type, then its value.
const AWS: u8 = 0xEA;
const AWS_VPC_ENDPOINT_ID: u8 = 0x01;
/// Azure: a sub-type, then its value.
const AZURE: u8 = 0xEE;
const AZURE_LINK_ID: u8 = 0x01;

/// The length in bytes of a type and a length.
pub(super) const TLV_HEAD: usize = 3;

/// Checks the TLVs that begin at `start` of the header `whole`, and keeps the known ones.
pub(super) fn parse(whole: &[u8], start: usize) -> Result<Tlvs, Fault> {
    let mut kept = Kept::default();
    let mut checksum_at = None;
    let mut walk = Walk { rest: whole.get(start..).unwrap_or_default() };
    while let Some((kind, value)) = walk.next()? {
        match kind {
            CRC32C if checksum_at.is_some() => return Err(Fault::TlvRepeated),
            CRC32C => checksum_at = Some((whole.len() - walk.rest.len() - value.len(), value)),
            UNIQUE_ID if value.len() > MAX_UNIQUE_ID => return Err(Fault::UniqueIdTooLong),
            ALPN | AUTHORITY | UNIQUE_ID => kept.push(kind, value)?,
            SSL => kept.push_ssl(value)?,
            GCP if value.len() == size_of::<u64>() => kept.push(kind, value)?,
            AZURE if azure_link_id(value).is_some() => kept.push(kind, value)?,
            AWS if aws_vpc_endpoint_id(value).is_some() => kept.push(kind, value)?,
            // NOOP, NETNS, and all that elbows does not know.
            _ => {}
        }
    }
    if let Some((at, value)) = checksum_at {
        verify(whole, at, value)?;
    }
    Ok(kept.done())
}

/// Checks the checksum `value`, found at `at`: the header's `CRC32c` with zeros in its place (specification, 2.2.3).
fn verify(whole: &[u8], at: usize, value: &[u8]) -> Result<(), Fault> {
    let &[a, b, c, d] = value else {
        return Err(Fault::Crc32cLength);
    };
    let before = whole.get(..at).unwrap_or_default();
    let after = whole.get(at + value.len()..).unwrap_or_default();
    if crc32c::checksum(&[before, &[0; 4], after]) != u32::from_be_bytes([a, b, c, d]) {
        return Err(Fault::Crc32cMismatch);
    }
    Ok(())
}

/// Goes from TLV to TLV.
struct Walk<'a> {
    rest: &'a [u8],
}

impl<'a> Walk<'a> {
    /// The next type and value; `None` at the end.
    fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, Fault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (&[kind, high, low], rest) = self.rest.split_first_chunk().ok_or(Fault::TlvOverrun)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, rest) = rest.split_at_checked(length).ok_or(Fault::TlvOverrun)?;
        self.rest = rest;
        Ok(Some((kind, value)))
    }

    /// The value of the first TLV of a type, in bytes that were checked before.
    fn find(mut self, wanted: u8) -> Option<&'a [u8]> {
        while let Ok(Some((kind, value))) = self.next() {
            if kind == wanted {
                return Some(value);
            }
        }
        None
    }
}

/// Collects what is kept.
#[derive(Default)]
struct Kept(Vec<u8>);

impl Kept {
    /// Keeps a TLV. Two of a type could be read differently by two readers, so the second is a fault.
    fn push(&mut self, kind: u8, value: &[u8]) -> Result<(), Fault> {
        if (Walk { rest: &self.0 }).find(kind).is_some() {
            return Err(Fault::TlvRepeated);
        }
        self.0.push(kind);
        // A value came out of a header with a length of 16 bits, so its own length fits.
        let length = u16::try_from(value.len()).map_err(|_| Fault::TlvOverrun)?;
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(value);
        Ok(())
    }

    /// Keeps a SSL TLV (specification, 2.2.6): client, verify and the known TLVs inside. A certificate is not kept.
    fn push_ssl(&mut self, value: &[u8]) -> Result<(), Fault> {
        let (fixed, rest) = value.split_first_chunk::<5>().ok_or(Fault::SslTooShort)?;
        let mut inner = Self::default();
        let mut walk = Walk { rest };
        while let Some((kind, value)) = walk.next()? {
            if matches!(kind, SSL_VERSION | SSL_CN | SSL_CIPHER) {
                inner.push(kind, value)?;
            }
        }
        self.push(SSL, &[fixed.as_slice(), &inner.0].concat())
    }

    fn done(self) -> Tlvs {
        if self.0.is_empty() {
            return Tlvs::default();
        }
        Tlvs(Some(self.0.into_boxed_slice()))
    }
}

fn aws_vpc_endpoint_id(value: &[u8]) -> Option<&str> {
    let (&AWS_VPC_ENDPOINT_ID, id) = value.split_first()? else {
        return None;
    };
    let printable = !id.is_empty() && id.iter().all(u8::is_ascii_graphic);
    printable.then(|| from_utf8(id).ok()).flatten()
}

fn azure_link_id(value: &[u8]) -> Option<u32> {
    match *value {
        [AZURE_LINK_ID, a, b, c, d] => Some(u32::from_le_bytes([a, b, c, d])),
        _ => None,
    }
}

/// The known TLVs of a header.
///
/// Text may hold any character that its format allows, control characters too: check it before it goes into a field.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tlvs(Option<Box<[u8]>>);

impl Tlvs {
    /// True if none of the known TLVs came.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The protocol that TLS agreed on, as in RFC 7301 (specification, 2.2.1).
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.find(ALPN)
    }

    /// The host name that the client asked for, in TLS its server name (specification, 2.2.2).
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        from_utf8(self.find(AUTHORITY)?).ok()
    }

    /// The load balancer's id for the connection: up to 128 bytes of any value (specification, 2.2.5).
    #[must_use]
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.find(UNIQUE_ID)
    }

    /// What is known about the client's TLS (specification, 2.2.6).
    #[must_use]
    pub fn ssl(&self) -> Option<Ssl<'_>> {
        let (&[client, a, b, c, d], inner) = self.find(SSL)?.split_first_chunk()?;
        let text = |kind| from_utf8(Walk { rest: inner }.find(kind)?).ok();
        Some(Ssl {
            client,
            verify: u32::from_be_bytes([a, b, c, d]),
            version: text(SSL_VERSION),
            cn: text(SSL_CN),
            cipher: text(SSL_CIPHER),
        })
    }

    /// The AWS VPC endpoint (`vpce-…`) through which the client came: printable ASCII.
    ///
    /// Type 0xEA, sub-type 0x01 (AWS, "Edit target group attributes for your Network Load Balancer").
    #[must_use]
    pub fn aws_vpc_endpoint_id(&self) -> Option<&str> {
        aws_vpc_endpoint_id(self.find(AWS)?)
    }

    /// The LINKID of the Azure private endpoint through which the client came.
    ///
    /// Type 0xEE, sub-type 0x01, 4 bytes, little endian (Azure, "What is Azure Private Link service?").
    #[must_use]
    pub fn azure_link_id(&self) -> Option<u32> {
        azure_link_id(self.find(AZURE)?)
    }

    /// The connection id of the Google Private Service Connect endpoint through which the client came.
    ///
    /// Type 0xE0, 8 bytes, big endian (Google Cloud, "Publish services by using Private Service Connect").
    #[must_use]
    pub fn gcp_psc_connection_id(&self) -> Option<u64> {
        let id = self.find(GCP)?.try_into().ok()?;
        Some(u64::from_be_bytes(id))
    }

    fn find(&self, kind: u8) -> Option<&[u8]> {
        Walk { rest: self.0.as_deref()? }.find(kind)
    }
}

impl fmt::Debug for Tlvs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tlvs")
            .field("alpn", &self.alpn())
            .field("authority", &self.authority())
            .field("unique_id", &self.unique_id())
            .field("ssl", &self.ssl())
            .field("aws_vpc_endpoint_id", &self.aws_vpc_endpoint_id())
            .field("azure_link_id", &self.azure_link_id())
            .field("gcp_psc_connection_id", &self.gcp_psc_connection_id())
            .finish()
    }
}

/// What the load balancer tells about the client's TLS (specification, 2.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ssl<'a> {
    /// Bits: 1 the client used TLS, 2 it sent a certificate on this connection, 4 it sent one in this TLS session.
    pub client: u8,
    /// 0 if the client's certificate was verified, anything else if it was not or if there was none.
    pub verify: u32,
    /// The version, such as `TLSv1.3`.
    pub version: Option<&'a str>,
    /// The common name in the client's certificate.
    pub cn: Option<&'a str>,
    /// The cipher, such as `ECDHE-RSA-AES128-GCM-SHA256`.
    pub cipher: Option<&'a str>,
}
