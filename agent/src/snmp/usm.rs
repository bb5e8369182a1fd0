//! The cryptography of the user-based security model: keys from passwords
//! (RFC 3414, A.2), digests (RFC 3414, 6 and 7; RFC 7860) and encryption
//! (RFC 3414, 8; RFC 3826).
//!
//! The algorithms are RustCrypto's. snmp2's own version 3 is not used: in the
//! version that builds with our compiler it wants OpenSSL, and it takes an
//! engine's time from a message before it has looked at the digest.

use aes::{Aes128, Aes192, Aes256};
use av_proto::driver::{SnmpCipher, SnmpHash};
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use des::Des;
use hmac::{Hmac, KeyInit, Mac};
use md5_digest::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

/// RFC 3414, A.2: a password is repeated to this length.
const STRETCHED: usize = 1 << 20;
const DES_BLOCK: usize = 8;

/// Runs the expression for the algorithm of a [`SnmpHash`], under a type name.
macro_rules! with_hash {
    ($hash:expr, $name:ident => $body:expr) => {
        match $hash {
            SnmpHash::Md5 => {
                type $name = Md5;
                $body
            }
            SnmpHash::Sha1 => {
                type $name = Sha1;
                $body
            }
            SnmpHash::Sha224 => {
                type $name = Sha224;
                $body
            }
            SnmpHash::Sha256 => {
                type $name = Sha256;
                $body
            }
            SnmpHash::Sha384 => {
                type $name = Sha384;
                $body
            }
            SnmpHash::Sha512 => {
                type $name = Sha512;
                $body
            }
        }
    };
}

/// The key of a password for any engine: a hash over 1 MiB, the same for
/// every device that has this password.
pub(super) fn master_key(hash: SnmpHash, password: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    // A whole number of passwords at a time: fewer and longer updates.
    let lap = password.repeat(4096 / password.len() + 1);
    with_hash!(hash, Algorithm => {
        let mut hasher = Algorithm::new();
        let mut left = STRETCHED;
        while left > 0 {
            let part = lap.get(..lap.len().min(left)).unwrap_or_default();
            hasher.update(part);
            left -= part.len();
        }
        hasher.finalize().to_vec()
    })
}

/// The key for one engine (RFC 3414, 2.6).
pub(super) fn localise(hash: SnmpHash, master: &[u8], engine_id: &[u8]) -> Vec<u8> {
    with_hash!(hash, Algorithm => {
        let mut hasher = Algorithm::new();
        hasher.update(master);
        hasher.update(engine_id);
        hasher.update(master);
        hasher.finalize().to_vec()
    })
}

/// The key of a cipher from a localised one, lengthened by hashes of itself
/// where it is too short (draft-blumenthal-aes-usm-04, 3.1.2.1).
pub(super) fn cipher_key(hash: SnmpHash, cipher: SnmpCipher, localised: &[u8]) -> Vec<u8> {
    let length = match cipher {
        // A key and what the initial vectors are made from.
        SnmpCipher::Des | SnmpCipher::Aes128 => 16,
        SnmpCipher::Aes192 => 24,
        SnmpCipher::Aes256 => 32,
    };
    let mut key = localised.to_vec();
    while key.len() < length {
        let more = with_hash!(hash, Algorithm => Algorithm::digest(&key).to_vec());
        key.extend(more);
    }
    key.truncate(length);
    key
}

/// How long a digest in a message is.
pub(super) fn digest_length(hash: SnmpHash) -> usize {
    match hash {
        SnmpHash::Md5 | SnmpHash::Sha1 => 12,
        SnmpHash::Sha224 => 16,
        SnmpHash::Sha256 => 24,
        SnmpHash::Sha384 => 32,
        SnmpHash::Sha512 => 48,
    }
}

/// The digest of a message.
pub(super) fn digest(hash: SnmpHash, key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut digest = with_hash!(hash, Algorithm => {
        // A key of any length is taken.
        match Hmac::<Algorithm>::new_from_slice(key) {
            Ok(mut mac) => {
                mac.update(message);
                mac.finalize().into_bytes().to_vec()
            }
            Err(_) => Vec::new(),
        }
    });
    digest.truncate(digest_length(hash));
    digest
}

/// Whether a message has this digest; in a time that does not tell how much of
/// it is right.
pub(super) fn has_digest(hash: SnmpHash, key: &[u8], message: &[u8], digest: &[u8]) -> bool {
    digest.len() == digest_length(hash)
        && with_hash!(hash, Algorithm => {
            Hmac::<Algorithm>::new_from_slice(key).is_ok_and(|mut mac| {
                mac.update(message);
                mac.verify_truncated_left(digest).is_ok()
            })
        })
}

/// The engine's clock, which goes into every encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock {
    pub boots: i32,
    pub time: i32,
}

/// Encrypts; the second value is `msgPrivacyParameters`. `salt` must differ
/// from message to message.
pub(super) fn encrypt(
    cipher: SnmpCipher,
    key: &[u8],
    clock: Clock,
    salt: u64,
    plain: &[u8],
) -> Option<(Vec<u8>, [u8; 8])> {
    let mut bytes = plain.to_vec();
    let salt = match cipher {
        SnmpCipher::Des => {
            // RFC 3414, 8.1.1.1: the boots, then a counter.
            let [.., a, b, c, d] = salt.to_be_bytes();
            let [e, f, g, h] = clock.boots.to_be_bytes();
            [e, f, g, h, a, b, c, d]
        }
        _ => salt.to_be_bytes(),
    };
    match cipher {
        SnmpCipher::Des => {
            bytes.resize(bytes.len().next_multiple_of(DES_BLOCK), 0);
            let (key, vector) = des_key(key, salt)?;
            let mut des = cbc::Encryptor::<Des>::new_from_slices(key, &vector).ok()?;
            for block in bytes.chunks_exact_mut(DES_BLOCK) {
                des.encrypt_block(block.try_into().ok()?);
            }
        }
        SnmpCipher::Aes128 => {
            let vector = aes_vector(clock, salt);
            cfb_mode::Encryptor::<Aes128>::new_from_slices(key, &vector)
                .ok()?
                .encrypt(&mut bytes);
        }
        SnmpCipher::Aes192 => {
            let vector = aes_vector(clock, salt);
            cfb_mode::Encryptor::<Aes192>::new_from_slices(key, &vector)
                .ok()?
                .encrypt(&mut bytes);
        }
        SnmpCipher::Aes256 => {
            let vector = aes_vector(clock, salt);
            cfb_mode::Encryptor::<Aes256>::new_from_slices(key, &vector)
                .ok()?
                .encrypt(&mut bytes);
        }
    }
    Some((bytes, salt))
}

/// Decrypts; `None` where lengths are none of the cipher's. What comes out of
/// a wrong key is no error here.
pub(super) fn decrypt(
    cipher: SnmpCipher,
    key: &[u8],
    clock: Clock,
    parameters: &[u8],
    encrypted: &[u8],
) -> Option<Vec<u8>> {
    let salt: [u8; 8] = parameters.try_into().ok()?;
    let mut bytes = encrypted.to_vec();
    match cipher {
        SnmpCipher::Des => {
            if bytes.len() % DES_BLOCK != 0 {
                return None;
            }
            let (key, vector) = des_key(key, salt)?;
            let mut des = cbc::Decryptor::<Des>::new_from_slices(key, &vector).ok()?;
            for block in bytes.chunks_exact_mut(DES_BLOCK) {
                des.decrypt_block(block.try_into().ok()?);
            }
        }
        SnmpCipher::Aes128 => {
            let vector = aes_vector(clock, salt);
            cfb_mode::Decryptor::<Aes128>::new_from_slices(key, &vector)
                .ok()?
                .decrypt(&mut bytes);
        }
        SnmpCipher::Aes192 => {
            let vector = aes_vector(clock, salt);
            cfb_mode::Decryptor::<Aes192>::new_from_slices(key, &vector)
                .ok()?
                .decrypt(&mut bytes);
        }
        SnmpCipher::Aes256 => {
            let vector = aes_vector(clock, salt);
            cfb_mode::Decryptor::<Aes256>::new_from_slices(key, &vector)
                .ok()?
                .decrypt(&mut bytes);
        }
    }
    Some(bytes)
}

/// RFC 3414, 8.1.1: the key, and the salt over the rest of it.
fn des_key(key: &[u8], salt: [u8; 8]) -> Option<(&[u8], [u8; 8])> {
    let (key, before) = key.split_at_checked(DES_BLOCK)?;
    let mut vector = salt;
    for (byte, other) in vector.iter_mut().zip(before) {
        *byte ^= other;
    }
    Some((key, vector))
}

/// RFC 3826, 3.1.2.1.
fn aes_vector(clock: Clock, salt: [u8; 8]) -> [u8; 16] {
    let mut vector = [0; 16];
    let parts = [
        &clock.boots.to_be_bytes()[..],
        &clock.time.to_be_bytes(),
        &salt,
    ];
    for (to, from) in vector.iter_mut().zip(parts.concat()) {
        *to = from;
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// RFC 3414, A.3: the password "maplesyrup", the engine 00..02.
    #[test]
    fn the_standards_own_keys() {
        let engine = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
        for (hash, master, localised) in [
            (
                SnmpHash::Md5,
                "9faf3283884e92834ebc9847d8edd963",
                "526f5eed9fcce26f8964c2930787d82b",
            ),
            (
                SnmpHash::Sha1,
                "9fb5cc0381497b3793528939ff788d5d79145211",
                "6695febc9288e36282235fc7151f128497b38f3f",
            ),
        ] {
            let key = master_key(hash, b"maplesyrup");
            assert_eq!(hex(&key), master);
            assert_eq!(hex(&localise(hash, &key, &engine)), localised);
        }
    }

    #[test]
    fn every_pair_decrypts_what_it_encrypted() {
        let clock = Clock { boots: 7, time: 99 };
        for (_, hash) in SnmpHash::ALL {
            let localised = localise(hash, &master_key(hash, b"password"), b"engine");
            let message = b"a message".to_vec();
            let digest = digest(hash, &localised, &message);
            assert_eq!(digest.len(), digest_length(hash));
            assert!(has_digest(hash, &localised, &message, &digest));
            assert!(!has_digest(hash, &localised, b"another", &digest));
            assert!(!has_digest(hash, &localised, &message, &digest[1..]));
            assert!(!has_digest(hash, b"", &message, &digest));
            for (_, cipher) in SnmpCipher::ALL {
                let key = cipher_key(hash, cipher, &localised);
                for length in [0, 1, 7, 8, 9, 16, 100] {
                    let plain = vec![b'x'; length];
                    let (bytes, salt) = encrypt(cipher, &key, clock, 5, &plain).unwrap();
                    assert!(length == 0 || bytes != plain);
                    let back = decrypt(cipher, &key, clock, &salt, &bytes).unwrap();
                    assert_eq!(&back[..length], plain);
                    assert!(back[length..].iter().all(|byte| *byte == 0));
                }
                assert_eq!(decrypt(cipher, &key, clock, b"short", b""), None);
                assert_eq!(decrypt(cipher, &[], clock, &[0; 8], &[0; 8]), None);
            }
        }
        let key = [0; 16];
        let odd = decrypt(SnmpCipher::Des, &key, clock, &[0; 8], &[0; 7]);
        assert_eq!(odd, None);
    }
}
