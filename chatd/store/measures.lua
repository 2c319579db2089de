-- The measures in force, with how often each was met; those that have ended are forgotten.
--
-- KEYS  1 measures  hash: id -> measure as JSON, a list whose fifth part is its end in Unix s, 0 for never; and the
--                   lockdown's level, absent for 0
--       2 hits      hash: id -> how often it has refused somebody
--       3 measured  string: the number of the latest change
-- ARGV  1 lockdown  the field of the level
-- Returns {number of the latest change, lockdown, measure, hits, measure, hits, ...}.

local now = tonumber(redis.call('TIME')[1])
local reply = {tonumber(redis.call('GET', KEYS[3]) or 0), tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or 0)}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if all[i] ~= ARGV[1] then
    local ends = cjson.decode(all[i + 1])[5]
    if ends > 0 and ends < now then
      redis.call('HDEL', KEYS[1], all[i])
      redis.call('HDEL', KEYS[2], all[i])
    else
      reply[#reply + 1] = all[i + 1]
      reply[#reply + 1] = tonumber(redis.call('HGET', KEYS[2], all[i]) or 0)
    end
  end
end
return reply
