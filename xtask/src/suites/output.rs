//! Where commands and their output go.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    process,
};

/// The output of a lane.
pub(super) enum Output {
    Stdout,
    /// A file without a name, printed when the lane has ended.
    Buffered(File),
}

impl Output {
    pub(super) fn buffered() -> anyhow::Result<Self> {
        Ok(Self::Buffered(tempfile::tempfile()?))
    }

    pub(super) fn line(&self, line: &str) -> anyhow::Result<()> {
        self.write(&format!("{line}\n"))
    }

    pub(super) fn write(&self, text: &str) -> anyhow::Result<()> {
        match self {
            Self::Stdout => print!("{text}"),
            Self::Buffered(file) => {
                let mut file = file;
                file.write_all(text.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Sends the output of a command here.
    pub(super) fn redirect(&self, command: &mut process::Command) -> anyhow::Result<()> {
        if let Self::Buffered(file) = self {
            command.stdout(file.try_clone()?).stderr(file.try_clone()?);
        }
        Ok(())
    }

    /// Returns everything that was written into the buffer.
    pub(super) fn content(&self) -> anyhow::Result<String> {
        let Self::Buffered(file) = self else {
            return Ok(String::new());
        };
        let (mut file, mut content) = (file, Vec::new());
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut content)?;
        Ok(String::from_utf8_lossy(&content).into_owned())
    }
}
