//! CRC32C, which every byte of an archive carries.

use base64::{Engine, engine::general_purpose::STANDARD};
use crc_fast::CrcAlgorithm;

/// The CRC32C of some bytes.
pub fn crc32c(bytes: &[u8]) -> u32 {
    // The checksum is 32 bits wide, in the lower half.
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
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
    }
}
