-- Comes before every script. ARGV[1] is what the names of all records start with.
--
-- A record is a hash with all of these fields: s the state (c claimed, d done, f failed, r refused, e ended), v a sealed
-- value, x the name of the next record of a done one, f the fence of a claim, n how many claims there were, u until when
-- it holds, t the tombstone of a claim that was ended, l for how long that lives, a the answer that an ended one had.
local FIELDS = {'s', 'v', 'x', 'f', 'n', 'u', 't', 'l', 'a'}

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function read(key)
  local values = redis.call('HMGET', key, unpack(FIELDS))
  local record = {}
  for i, field in ipairs(FIELDS) do
    record[field] = values[i] or ''
  end
  record.n = tonumber(record.n)
  record.u = tonumber(record.u)
  return record
end

local function write(key, life, record)
  local arguments = {}
  for _, field in ipairs(FIELDS) do
    table.insert(arguments, field)
    table.insert(arguments, record[field] or '')
  end
  -- A server without memory refuses the first write of a script, but no `DEL`, nor what follows it: no token is claimed,
  -- and what has become of a claimed one is recorded.
  if redis.call('PTTL', key) ~= -2 then
    redis.call('DEL', key)
  end
  redis.call('HSET', key, unpack(arguments))
  redis.call('PEXPIRE', key, life)
end

-- A user without access to the channel still has the store: the others poll.
local function publish(channel, name)
  redis.pcall('PUBLISH', channel, name)
end

-- Returns the state behind all answers, its value, its time in milliseconds, and the answers.
local function look(key)
  local answers = {}
  while true do
    local record = read(key)
    if record.s == 'd' and #answers < 16 then
      table.insert(answers, record.v)
      key = ARGV[1] .. record.x
    elseif record.s == '' then
      return {'absent', '', 0, answers}
    elseif record.s == 'd' then
      return {'rotated', '', 0, answers}
    elseif record.s == 'c' and record.t ~= '' then
      return {'ended', record.t, 0, answers}
    elseif record.s == 'c' and now < record.u then
      return {'claimed', record.v, record.u - now, answers}
    elseif record.s == 'c' then
      return {record.n <= 1 and 'stalled' or 'lost', record.v, 0, answers}
    elseif record.s == 'f' then
      return {'failed', record.v, redis.call('PTTL', key), answers}
    else
      return {record.s == 'r' and 'refused' or record.s == 'e' and 'ended', record.v, 0, answers}
    end
  end
end
