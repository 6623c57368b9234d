//! Small programs, to the letter.
