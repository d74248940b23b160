//! The text index, compared with one that is made of the texts now.

use std::cmp::Ordering;

use super::connections::Snapshot;
use super::findings::{Finding, Findings};
use super::progress::Progress;
use super::text::{TOKENIZER, index_column, insert_texts, select_sql};
use crate::error::Result;
use crate::proto;
use crate::schema::{TableSchema, quote};

/// The index that is made of the texts, in SQLite's temporary database.
const MADE: &str = "_feast_vector_verify";

/// A word of a text: the word, the row, the column and the place.
type Word = (Vec<u8>, i64, String, i64);

impl Snapshot<'_> {
    pub(super) fn check_texts(
        &self,
        schema: &TableSchema,
        progress: &Progress,
        findings: &mut Findings,
    ) -> Result<()> {
        let stored = schema.text_table();
        let columns: Vec<String> = schema.text_columns().map(index_column).collect();
        let names = columns.join(", ");
        self.drop_made()?;
        self.connection.execute_batch(&format!(
            "CREATE VIRTUAL TABLE temp.{MADE} USING fts5({names}, content = '',
                 contentless_delete = 1, tokenize = \"{TOKENIZER}\");
             CREATE VIRTUAL TABLE temp.{MADE}_words USING fts5vocab(temp, {MADE}, instance);
             CREATE VIRTUAL TABLE temp.{MADE}_stored USING fts5vocab(main, {stored}, instance)"
        ))?;
        let compared = self
            .fill_made(schema, &names, columns.len(), progress)
            .and_then(|()| self.compare_texts(schema, &stored, progress, findings));
        let dropped = self.drop_made();
        compared.and(dropped)
    }

    fn fill_made(
        &self,
        schema: &TableSchema,
        names: &str,
        columns: usize,
        progress: &Progress,
    ) -> Result<()> {
        let total = self.count(schema)?;
        let mut insert = self.connection.prepare(&format!(
            "INSERT INTO temp.{MADE} (rowid, {names}) VALUES (?1{})",
            ", ?".repeat(columns)
        ))?;
        let mut rows =
            self.connection.prepare(&format!("{} ORDER BY row_id", select_sql(schema)))?;
        let mut rows = rows.query([])?;
        let mut done = 0;
        while let Some(row) = rows.next()? {
            done += 1;
            progress.at("texts", done, total.max(done + 1))?;
            insert_texts(&mut insert, row)?;
        }
        Ok(())
    }

    fn compare_texts(
        &self,
        schema: &TableSchema,
        stored: &str,
        progress: &Progress,
        findings: &mut Findings,
    ) -> Result<()> {
        let select = |table: &str| {
            self.connection
                .prepare(&format!("SELECT term, doc, col, offset FROM temp.{MADE}_{table}"))
        };
        let (mut made, mut there) = (select("words")?, select("stored")?);
        let (mut made, mut there) = (made.query([])?, there.query([])?);
        let (mut want, mut have) = (next(&mut made)?, next(&mut there)?);
        let place = |column: &str| schema.text_columns().position(|c| index_column(c) == column);
        while want.is_some() || have.is_some() {
            progress.at("words", 0, u64::MAX)?;
            let order = match (&want, &have) {
                (Some(a), Some(b)) => {
                    (&a.0, a.1, place(&a.2), a.3).cmp(&(&b.0, b.1, place(&b.2), b.3))
                }
                (Some(_), None) => Ordering::Less,
                _ => Ordering::Greater,
            };
            match order {
                Ordering::Equal => {
                    want = next(&mut made)?;
                    have = next(&mut there)?;
                }
                Ordering::Less => {
                    self.differs(schema, want.as_ref(), "lacks the word", findings)?;
                    want = next(&mut made)?;
                }
                Ordering::Greater => {
                    let what = "has a word that is not in the text:";
                    self.differs(schema, have.as_ref(), what, findings)?;
                    have = next(&mut there)?;
                }
            }
        }
        // Rows whose number of words, which ranks depend on, is wrong or left over.
        let mut statement = self.connection.prepare(&format!(
            "SELECT a.id FROM main.{0} a LEFT JOIN temp.{MADE}_docsize b USING (id)
             WHERE b.sz IS NOT a.sz
             UNION SELECT b.id FROM temp.{MADE}_docsize b LEFT JOIN main.{0} a USING (id)
             WHERE a.id IS NULL",
            quote(&format!("{stored}_docsize"))
        ))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let word = (Vec::new(), row.get(0)?, String::new(), 0);
            self.differs(
                schema,
                Some(&word),
                "has another number of words than the texts",
                findings,
            )?;
        }
        Ok(())
    }

    fn differs(
        &self,
        schema: &TableSchema,
        word: Option<&Word>,
        what: &str,
        findings: &mut Findings,
    ) -> Result<()> {
        let Some((term, row_id, column, _)) = word else {
            return Ok(());
        };
        let column = schema.text_columns().find(|c| index_column(c) == *column);
        let term = String::from_utf8_lossy(term);
        let term = if term.is_empty() { String::new() } else { format!(" '{term}'") };
        findings.add(Finding {
            check: "text",
            message: format!("the text index {what}{term}"),
            view: Some(schema.view.clone()),
            feature: column.map(|column| column.feature.clone()),
            row_id: Some(*row_id),
            key: self.shown_key(schema, *row_id)?,
            file: None,
        });
        Ok(())
    }

    /// A row's entity key for people.
    pub fn shown_key(&self, schema: &TableSchema, row_id: i64) -> Result<Option<String>> {
        let sql = format!("SELECT entity_key FROM {} WHERE row_id = ?1", quote(&schema.sql_name));
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query([row_id])?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let key = row.get_ref(0)?.as_blob().unwrap_or_default();
        Ok(proto::decode_key(key).ok().map(|key| key.to_string()))
    }

    fn drop_made(&self) -> Result<()> {
        Ok(self.connection.execute_batch(&format!(
            "DROP TABLE IF EXISTS temp.{MADE}_words; DROP TABLE IF EXISTS temp.{MADE}_stored;
             DROP TABLE IF EXISTS temp.{MADE}"
        ))?)
    }
}

fn next(rows: &mut rusqlite::Rows<'_>) -> Result<Option<Word>> {
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let term = row.get_ref(0)?.as_bytes().unwrap_or_default().to_vec();
    Ok(Some((term, row.get(1)?, row.get(2)?, row.get(3)?)))
}
