-- KEYS[1]: the record.
return look(KEYS[1])
