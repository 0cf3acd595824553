//! Which partition a key goes to: the rule that Kafka's Java clients have, so that records of one
//! key meet in one partition whoever writes them.

use crate::topic::Partition;

const SEED: u32 = 0x9747_b28c;
const MULTIPLIER: u32 = 0x5bd1_e995;
const SHIFT: u32 = 24;

/// The partition of a key in a topic of that many partitions, which is at least 1.
pub fn partition_of(key: &[u8], partitions: u32) -> Partition {
    Partition((murmur2(key) & 0x7fff_ffff) % partitions)
}

/// MurmurHash2 of 32 bits with Kafka's seed.
fn murmur2(key: &[u8]) -> u32 {
    let mut hash = SEED ^ (key.len() as u32);
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> SHIFT;
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed.wrapping_mul(MULTIPLIER);
    }
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, byte| (tail << 8) | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(MULTIPLIER);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_java_clients_do() {
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn drops_the_sign_before_it_divides() {
        let positive = (-973_932_308_i32 as u32) & 0x7fff_ffff;
        assert_eq!(partition_of(b"21", 7), Partition(positive % 7));
        assert_eq!(partition_of(b"21", 1), Partition(0));
        assert!((0..1_000_u32).all(|n| partition_of(&n.to_le_bytes(), 3).0 < 3));
    }
}
