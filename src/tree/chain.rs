//! A way down a tree, level by level, that can be gone back: however deep, with few open descriptors and no recursion.

use nix::errno::Errno;

use super::Dir;

/// How many directories above the current one stay open; the others are opened again through `..`.
const OPEN: usize = 8;

struct Level {
    id: (u64, u64),
    dir: Option<Dir>,
}

/// The current directory of a walk and the way back to its root.
pub struct Chain {
    here: Dir,
    id: (u64, u64),
    above: Vec<Level>,
}

impl Chain {
    /// Starts at `root`; the chain never leaves it upwards.
    pub fn new(root: Dir) -> nix::Result<Self> {
        let id = root.stat()?.id;
        Ok(Self { here: root, id, above: Vec::new() })
    }

    /// Starts at a second handle of `root`.
    pub fn of(root: &Dir) -> nix::Result<Self> {
        Self::new(root.again()?)
    }

    /// The current directory.
    pub fn here(&self) -> &Dir {
        &self.here
    }

    /// Device and inode of the current directory.
    pub fn id(&self) -> (u64, u64) {
        self.id
    }

    /// How many levels below the root.
    pub fn depth(&self) -> usize {
        self.above.len()
    }

    /// Goes down into `child`, a directory of the current one.
    pub fn down(&mut self, child: Dir) -> nix::Result<()> {
        let id = child.stat()?.id;
        self.down_to(child, id);
        Ok(())
    }

    /// The same where device and inode of `child` are known.
    pub fn down_to(&mut self, child: Dir, id: (u64, u64)) {
        let dir = std::mem::replace(&mut self.here, child);
        self.above.push(Level { id: self.id, dir: Some(dir) });
        self.id = id;
        if let Some(level) = self.above.len().checked_sub(OPEN + 1).and_then(|n| self.above.get_mut(n)) {
            level.dir = None;
        }
    }

    /// Goes one level up; false at the root. ESTALE when the tree was rearranged under the walk.
    pub fn up(&mut self) -> nix::Result<bool> {
        let Some(level) = self.above.last_mut() else { return Ok(false) };
        let dir = match level.dir.take() {
            Some(dir) => dir,
            None => {
                let dir = self.here.parent()?;
                if dir.stat()?.id != level.id {
                    return Err(Errno::ESTALE);
                }
                dir
            }
        };
        self.id = level.id;
        self.here = dir;
        self.above.pop();
        Ok(true)
    }

    /// The current directory alone.
    pub fn into_here(self) -> Dir {
        self.here
    }
}
