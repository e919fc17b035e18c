//! Maps of sparse files: where their data lie.

use crate::sum::Sum;

/// Stretches of data as (offset, length), in their order.
pub type Map = Vec<(u64, u64)>;

/// Pairs the numbers of a map up.
pub fn pairs(numbers: &[u64]) -> Result<Map, String> {
    if numbers.len() % 2 != 0 {
        return Err("has half a stretch in its sparse map".to_owned());
    }
    let (mut map, mut numbers) = (Map::new(), numbers.iter());
    while let (Some(offset), Some(length)) = (numbers.next(), numbers.next()) {
        map.push((*offset, *length));
    }
    Ok(map)
}

/// Refuses a map that overlaps, goes backwards, reaches beyond the file, or does not name as much data as there is.
pub fn check(map: &[(u64, u64)], real_size: u64, data: u64) -> Result<(), String> {
    let mut end = 0u64;
    let mut sum = 0u64;
    for (offset, length) in map {
        if *offset < end {
            return Err("has a sparse map that overlaps itself".to_owned());
        }
        end = match offset.checked_add(*length) {
            Some(end) if end <= real_size => end,
            _ => return Err("has a sparse map that reaches beyond the file".to_owned()),
        };
        sum = sum.plus(*length);
    }
    if sum != data {
        return Err(format!("has a sparse map of {sum} bytes of data, and {data} of them"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_that_cannot_be() {
        assert!(check(&[], 0, 0).is_ok());
        assert!(check(&[], 1 << 40, 0).is_ok());
        assert!(check(&[(0, 512), (1024, 512), (4096, 0)], 4096, 1024).is_ok());
        assert!(check(&[(0, 512), (511, 512)], 4096, 1024).is_err());
        assert!(check(&[(1024, 512), (0, 512)], 4096, 1024).is_err());
        assert!(check(&[(4095, 2)], 4096, 2).is_err());
        assert!(check(&[(u64::MAX, 2)], u64::MAX, 2).is_err());
        assert!(check(&[(0, 512)], 4096, 511).is_err());
        assert!(pairs(&[1, 2, 3]).is_err());
    }
}
