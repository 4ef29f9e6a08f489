//! CRC32C, which every byte of an archive carries.

use base64::{Engine, engine::general_purpose::STANDARD};
use crc_fast::{CrcAlgorithm, Digest};

/// The CRC32C of some bytes.
pub fn crc32c(bytes: &[u8]) -> u32 {
    // The checksum is 32 bits wide, in the lower half.
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// A CRC32C over bytes that come one after the other.
#[derive(Clone)]
pub(crate) struct Crc32c(Digest);

impl Crc32c {
    pub(crate) fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn value(&self) -> u32 {
        self.0.clone().finalize() as u32
    }
}

impl std::fmt::Debug for Crc32c {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Crc32c({:08x})", self.value())
    }
}

/// A checksum as S3's headers carry it.
pub(crate) fn header(crc32c: u32) -> String {
    STANDARD.encode(crc32c.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_crc32c_of_rfc_3720_and_of_s3() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(header(crc32c(b"123456789")), "4waSgw==");
        let mut parts = Crc32c::new();
        parts.update(b"1234");
        parts.update(b"56789");
        assert_eq!(parts.value(), 0xE306_9283);
    }
}
